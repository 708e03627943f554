// On the atlas's pages, when they are served: the way to the studio, notes and stars of a feature, and a filter by them.
"use strict";

(() => {
  const { el } = Atlas;
  const series = document.querySelector(".series");
  series.querySelector(".rule").after(el("a", { href: "studio.html" }, "Studio"), el("a", { href: "index.html" }, "Features"));
  series.querySelector("a").href = "studio.html";
  const here = location.pathname.split("/").pop();
  for (const link of series.querySelectorAll(".rule ~ a")) if (link.getAttribute("href") === here) link.setAttribute("aria-current", "page");
  const style = el("link", { rel: "stylesheet", href: "assets/explore.css" });
  document.head.append(style);
  if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);
  if (document.body.classList.contains("page-index")) filter().catch(() => {});
  if (!document.body.classList.contains("page-feature")) return;

  /** In the list of features: those with a star or a note. */
  async function filter() {
    const named = document.getElementById("named");
    named.append(
      el("option", { value: "starred" }, "starred by you"), el("option", { value: "noted" }, "with your note"));
    Atlas.search.know(await Asking.get("api/notes"));
    if (["starred", "noted"].includes(named.value)) document.getElementById("finder").dispatchEvent(new Event("input"));
  }

  const main = document.getElementById("main");
  let notes = null;

  async function panel() {
    const query = Atlas.address();
    const atlas = await Atlas.load("atlas");
    const site = atlas.sites.find((s) => s.slug === query.get("site"));
    const top = main.querySelector(".top");
    if (!site || !top || main.querySelector(".notes")) return;
    notes = notes || await Asking.get("api/notes");
    if (main.querySelector(".notes")) return;
    const feature = Number(query.get("f")), key = `${site.slug}/${feature}`;
    const note = notes[key] || { star: false, text: "" };
    const said = el("span", { class: "small", role: "status" });
    const text = el("textarea", { rows: 2, "aria-label": "Your note on this feature", placeholder: "Your note" }, note.text);
    const star = el("button", { type: "button", class: "star", "aria-pressed": String(note.star) }, note.star ? "★ starred" : "☆ star");
    // One after the other: the server might take up two that are under way at once in the wrong order.
    let saving = Promise.resolve(), waiting = 0;
    const keep = () => {
      waiting += 1;
      said.textContent = "";
      saving = saving.then(async () => {
        waiting -= 1;
        if (waiting) return;  // the next one holds all of this
        const typed = text.value;
        try {
          notes = await Asking.post("api/note", { site: site.slug, feature, star: note.star, text: typed });
          if (!waiting && text.value === typed) said.textContent = "kept";
        } catch (error) { said.textContent = error.message; }
      });
    };
    star.addEventListener("click", () => {
      note.star = !note.star;
      star.setAttribute("aria-pressed", note.star);
      star.textContent = note.star ? "★ starred" : "☆ star";
      keep();
    });
    text.addEventListener("change", keep);
    text.addEventListener("input", () => { said.textContent = ""; });
    const name = main.querySelector("h1 a") ? main.querySelector("h1 a").textContent : "";
    const to = new URLSearchParams({ block: site.block, stream: site.stream, signal: site.signal, branch: site.branch, t: site.t, f: feature, name });
    top.after(el("div", { class: "notes" }, el("a", { class: "button strong", href: "studio.html#" + to }, site.stream === "text" ? "Draw with it" : "Paint with it"), star, text, said));
  }

  new MutationObserver(() => panel().catch(() => {})).observe(main, { childList: true });
  panel().catch(() => {});
})();

// The index page: filters in the address, one page of entries in the document at a time.
"use strict";

(async () => {
  const { el, count, many } = Atlas;
  const PAGE = 36;
  const $ = (id) => document.getElementById(id);
  const FIELDS = ["q", "block", "t", "branch", "sort", "named"];
  let atlas, index, hits = [], page = 1;

  try {
    // Where the page is served, a later script gives it more to choose from, which its address may name.
    if (document.readyState === "loading") await new Promise((ready) => document.addEventListener("DOMContentLoaded", ready));
    atlas = await Atlas.load("atlas");
    index = Atlas.search.prepare(atlas, await Atlas.load("features"));
  } catch (error) {
    Atlas.complain($("status"), `The index cannot be shown: ${error.message}. Is the whole atlas folder here?`);
    return;
  }

  function state() {
    return {
      q: $("q").value, block: $("block").value, t: $("t").value, branch: $("branch").value, sort: $("sort").value,
      held: Number($("held").value), qmax: Atlas.search.Q_STEPS[Number($("qmax").value)], named: $("named").value,
    };
  }

  function remember() {
    const query = new URLSearchParams();
    for (const id of FIELDS) if ($(id).value && $(id).value !== "excess") query.set(id, $(id).value);
    for (const id of ["held", "qmax"]) if (Number($(id).value)) query.set(id, $(id).value);
    if (page > 1) query.set("page", page);
    history.replaceState(null, "", "#" + query);
  }

  function recall() {
    const query = Atlas.address();
    for (const id of FIELDS) if (query.has(id)) $(id).value = query.get(id);
    for (const id of ["held", "qmax"]) $(id).value = query.get(id) || 0;
    if (!$("sort").value) $("sort").value = "excess";
    page = Math.max(1, Number(query.get("page")) || 1);
  }

  function search() {
    const now = state();
    $("held-out").value = now.held;
    $("q-out").value = now.qmax;
    hits = Atlas.search.find(atlas, index, now);
    document.querySelectorAll("button.sheet").forEach((button, i) => {
      const site = button.site;
      button.setAttribute("aria-pressed", site.port === now.block && site.branch === now.branch && site.t.toFixed(2) === now.t);
    });
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(hits.length / PAGE));
    page = Math.min(page, pages);
    const from = (page - 1) * PAGE;
    const part = hits.slice(from, from + PAGE);
    $("entries").replaceChildren(...part.map(([i, row]) => Atlas.entries.entry(atlas, index, i, row)));
    $("status").textContent = hits.length
      ? `${many(hits.length, "feature")} of ${count(index.n)}; ${count(from + 1)} to ${count(from + part.length)} shown`
      : "No feature matches. " + (["starred", "noted"].includes($("named").value) ? "Open one to star it or to write a note."
        : "Loosen a filter, or try the beginning of a word, a number (no. 113) or a block (mid).");
    pager(pages);
    remember();
  }

  function pager(pages) {
    const step = (label, to, ok) => el("button", { type: "button", disabled: !ok, onclick: () => turn(to) }, label);
    const box = el("input", { type: "number", min: 1, max: pages, value: page, "aria-label": "Page",
      onchange: (event) => turn(Math.min(pages, Math.max(1, Math.round(Number(event.target.value)) || 1))) });
    $("pager").replaceChildren(...(pages < 2 ? [] : [
      step("← Previous", page - 1, page > 1), el("span", {}, "page ", box, " of " + count(pages)), step("Next →", page + 1, page < pages)]));
  }

  function turn(to) {
    page = to;
    show();
    $("status").scrollIntoView({ block: "start" });
  }

  function options(id, all, values, say) {
    $(id).replaceChildren(el("option", { value: "" }, all), ...values.map((v) => el("option", { value: v }, say ? say(v) : v)));
  }

  function choose(site) {
    const chosen = $("block").value === site.port && $("t").value === site.t.toFixed(2) && $("branch").value === site.branch;
    $("block").value = chosen ? "" : site.port;
    $("t").value = chosen ? "" : site.t.toFixed(2);
    $("branch").value = chosen ? "" : site.branch;
    page = 1;
    search();
    $("finder-title").scrollIntoView({ block: "start" });
  }

  function keys(event) {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/") {
      event.preventDefault();
      $("q").focus();
    } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const all = [...document.querySelectorAll(".entry")];
      const at = all.indexOf(document.activeElement);
      const next = all[at < 0 ? 0 : at + (event.key === "ArrowRight" ? 1 : -1)];
      if (next) { event.preventDefault(); next.focus(); }
    }
  }

  const named = atlas.sites.reduce((sum, s) => sum + s.labelled, 0), alive = atlas.sites.reduce((sum, s) => sum + s.n - s.dead, 0);
  $("lede").textContent = `An index of ${many(index.n, "feature")} found inside ${atlas.model || "a text-to-image model"} at ` +
    `${many(atlas.sites.length, "site")}, seen through ${many(atlas.images, "picture")}: ${count(alive)} of them ever fire, ${count(named)} carry the name of something they stand for.`;
  options("block", "all blocks", atlas.blocks, Atlas.shortBlock);
  options("t", "every t", [...new Set(atlas.sites.map((s) => s.t.toFixed(2)))].sort((a, b) => b - a));
  options("branch", "both branches", [...new Set(atlas.sites.map((s) => s.branch))]);
  $("names").append(...atlas.concepts.slice(0, 200).map((name) => el("option", { value: name })));
  $("sheets").replaceChildren(Atlas.entries.sheets(atlas, choose));
  recall();
  let timer = 0;
  $("finder").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => { page = 1; search(); }, 60); });
  $("finder").addEventListener("submit", (event) => event.preventDefault());
  $("finder").addEventListener("reset", () => setTimeout(() => { page = 1; search(); }));
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", () => { recall(); search(); });
  search();
})();

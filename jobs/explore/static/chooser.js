// Choosing what to paint: concepts by name, features by name or number, from the index of the atlas.
"use strict";

async function chooser(edits, world, painted) {
  const { el } = Atlas;
  const box = document.getElementById("what"), list = document.getElementById("found");
  box.disabled = true;
  box.placeholder = "the index is being written…";
  const atlas = await Atlas.load("atlas");
  const index = Atlas.search.prepare(atlas, await Atlas.load("features"));
  let at = -1;
  box.disabled = false;
  box.placeholder = "dog, or 113";

  function feature(i, row) {
    const site = atlas.sites[index.site[i]];
    const name = row >= 0 ? atlas.concepts[index.concept[row]] : index.labels[i] ? atlas.concepts[index.concept[index.first[i]]] : null;
    return { block: site.block, stream: site.stream, signal: site.signal, branch: site.branch, t: site.t, feature: index.f[i], name };
  }

  function options(query) {
    const concepts = Object.keys(world.concepts).filter((name) => Atlas.search.matches(name, query)).slice(0, 8).map((concept) => ({ concept }));
    const state = { q: query, block: "", t: "", branch: "", sort: "excess", held: 0, qmax: 1, named: "" };
    const found = query ? Atlas.search.find(atlas, index, state).slice(0, 1000).map(([i, row]) => feature(i, row)) : [];
    const called = (what) => Boolean(what.name) && Atlas.search.matches(what.name, query);
    const features = [...found.filter(called), ...found.filter((what) => !called(what))].slice(0, 24);  // "do" means dogs before down 0.0
    const looks = world.looks.filter((name) => Atlas.search.matches(name, query)).slice(0, 8).map((word) => ({ word }));
    return [...concepts, ...looks, ...features];
  }

  function row(what, i) {
    const mark = el("i", { class: "ink" });
    const ink = world.colours[what.concept || what.name];
    if (ink) mark.style.background = `rgb(${ink.join(" ")})`;
    const place = what.concept ? "concept: what fires more where it is" : what.word ? "look: what fires more in such pictures" : `${Atlas.shortBlock(Atlas.port(what))} · ${what.branch} · t ${what.t.toFixed(2)} · no. ${what.feature}${what.stream === "text" ? " · words, not a place" : ""}`;
    return el("li", { role: "option", id: "found-" + i, "aria-selected": String(i === at), onpointerdown: (event) => { event.preventDefault(); take(what); } },
      mark, el("b", {}, what.concept || what.word || what.name || "unnamed"), el("span", { class: "small" }, " " + place));
  }

  let shown = [];
  function show() {
    const query = box.value.trim();
    shown = options(query);
    at = Math.min(at, shown.length - 1);
    list.replaceChildren(...(shown.length ? shown.map(row) : [el("li", { class: "nothing" }, "Nothing of this name or number")]));
    list.hidden = false;
    box.setAttribute("aria-expanded", "true");
    box.setAttribute("aria-activedescendant", at >= 0 ? "found-" + at : "");
    const chosen = document.getElementById("found-" + at);
    if (chosen) chosen.scrollIntoView({ block: "nearest" });
  }

  function close() {
    list.hidden = true;
    at = -1;
    box.setAttribute("aria-expanded", "false");
  }

  function take(what) {
    edits.add(what);
    box.value = "";
    close();
    box.blur();
    painted();
  }

  box.addEventListener("input", () => { at = -1; show(); });
  box.addEventListener("focus", show);
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at = Math.max(-1, Math.min(shown.length - 1, at + (event.key === "ArrowDown" ? 1 : -1)));
      show();
    } else if (event.key === "Enter" && shown.length) take(shown[Math.max(0, at)]);
    else if (event.key === "Escape") { close(); box.blur(); } else return;
    event.preventDefault();
  });
  return { take };
}

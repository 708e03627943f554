// The A–Z of names: what concept.html shows when its address names none.
"use strict";

Atlas.names = (() => {
  const { el, many } = Atlas;
  const MOST = 240;

  function entry(atlas, i) {
    return el("li", {}, el("a", { href: Atlas.conceptLink(atlas.concepts[i]) }, atlas.concepts[i]),
      el("span", { class: "leader", "aria-hidden": "true" }), el("span", { class: "small count" }, many(atlas.carriers[i], "feature")));
  }

  /** The names that start with what is typed, at most MOST of them in the document. */
  function list(atlas, query) {
    const found = atlas.concepts.map((_, i) => i)
      .filter((i) => (" " + atlas.concepts[i].toLowerCase()).includes(" " + query));
    const groups = new Map();
    for (const i of found.slice(0, MOST)) {
      const letter = atlas.concepts[i].slice(0, 1).toUpperCase();
      if (!groups.has(letter)) groups.set(letter, []);
      groups.get(letter).push(i);
    }
    return [
      el("p", { class: "note", role: "status" }, found.length > MOST
        ? `The first ${MOST} of ${many(found.length, "name")}; type to narrow them.` : many(found.length, "name")),
      el("div", { class: "names" }, [...groups].map(([letter, members]) =>
        el("section", {}, el("h2", { class: "letter" }, letter), el("ul", {}, members.map((i) => entry(atlas, i)))))),
    ];
  }

  function show(atlas, main) {
    const body = el("div", {});
    const box = el("input", { type: "search", id: "q", autocomplete: "off", placeholder: "beginning of a word",
      oninput: () => body.replaceChildren(...list(atlas, box.value.trim().toLowerCase())) });
    body.replaceChildren(...list(atlas, ""));
    document.title = "Names A–Z · Gazetteer";
    main.replaceChildren(
      el("header", { class: "title" }, el("h1", {}, "Names A–Z"),
        el("p", { class: "lede" }, "Things found in the pictures, looks, places, and how many features carry each name.")),
      el("label", { class: "wide" }, el("span", {}, "Name"), box), body);
  }

  return { show };
})();

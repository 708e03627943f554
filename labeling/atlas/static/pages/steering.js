// Steering sheets: the same noise and prompt, unedited, with an edit at each stage of sampling, or of the weights.
"use strict";

(async () => {
  const { el } = Atlas;
  const main = document.getElementById("main");
  const TITLES = { plain: "original", edited: "edited", early: "early", middle: "middle", final: "final" };

  function panel(row, name) {
    const box = el("div", { class: "frame" }, el("img", { src: row.files[name], alt: `${TITLES[name] || name}: ${row.prompt}`, loading: "lazy" }));
    box.style.aspectRatio = "1";
    return el("div", { class: "panel" }, box, el("p", { class: "panel-title" }, TITLES[name] || name));
  }

  function sheet(row) {
    return el("figure", { class: "plate" },
      el("div", { class: "panels four" }, Object.keys(row.files).map((name) => panel(row, name))),
      el("figcaption", {}, el("q", { class: "prompt" }, row.prompt), el("span", { class: "small" }, ` seed ${row.seed}`),
        el("ul", { class: "small said" }, row.edits.map((text) => el("li", {}, text)))));
  }

  try {
    const rows = await Atlas.load("edits");
    if (!rows.length) throw new Error("This atlas holds no steering sheets; gazetteer steer draw --stages and gazetteer attribute sheet make them, gazetteer atlas --edits shows them.");
    main.replaceChildren(
      el("h1", {}, "The same picture, steered"),
      el("p", { class: "lede" }, "Each row is one prompt and one noise: as it is, and with edits of activations (early, in the middle or at the end of sampling) or of weights."),
      el("div", { class: "plates wide" }, rows.map(sheet)));
  } catch (error) {
    Atlas.complain(main, error.message);
  }
})();

// Layouts: what was predicted while the picture was noise, step by step, beside the finished picture.
"use strict";

(async () => {
  const { el } = Atlas;
  const main = document.getElementById("main");

  function bytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  function canvas(maps, description) {
    return el("canvas", { width: maps.width, height: maps.height, role: "img", "aria-label": description, class: "heat" });
  }

  function paint(target, maps, colour) {
    const context = target.getContext("2d", { willReadFrequently: true });
    const image = context.createImageData(maps.width, maps.height);
    for (let cell = 0; cell < maps.width * maps.height; cell++) image.data.set(colour(cell), 4 * cell);
    context.putImageData(image, 0, 0);
  }

  /** Of the concepts predicted in a cell the most probable one, or -1. */
  function winner(levels, masks, at, concepts, cells) {
    let best = -1;
    for (let c = 0; c < concepts; c++) {
      const i = at + c * cells;
      if (masks[i] && (best < 0 || levels[i] > levels[at + best * cells])) best = c;
    }
    return best;
  }

  function frame(...layers) {
    const box = el("div", { class: "frame" }, ...layers);
    box.style.aspectRatio = "1";
    return box;
  }

  function panel(title, body) {
    return el("div", { class: "panel" }, body, el("p", { class: "panel-title" }, title));
  }

  async function sheet(head, number) {
    const maps = await Atlas.load("layouts/" + number);
    const levels = bytes(maps.levels), masks = bytes(maps.masks);
    const cells = maps.width * maps.height, concepts = maps.concepts.length;
    const joint = canvas(maps, "Where each named thing is predicted");
    const single = maps.concepts.map((name) => canvas(maps, `How probable “${name}” is in each cell`));
    const said = el("output", {});
    const slider = el("input", { type: "range", min: 0, max: head.t.length - 1, step: 1, value: 0, "aria-label": "Sampler step" });

    function show() {
      const step = Number(slider.value), at = step * concepts * cells;
      said.textContent = `step ${step + 1} of ${head.t.length}, t = ${head.t[step].toFixed(2)}`;
      paint(joint, maps, (cell) => {
        const best = winner(levels, masks, at + cell, concepts, cells);
        return best < 0 ? [0, 0, 0, 0] : [...maps.inks[best], 205];
      });
      single.forEach((target, c) => paint(target, maps, (cell) => {
        const level = levels[at + c * cells + cell];
        return [...Atlas.heat.colour(level), level ? 200 : 0];
      }));
    }

    slider.addEventListener("input", show);
    show();
    const keys = maps.concepts.map((name, c) => {
      const mark = el("span", { class: "ink" });
      mark.style.background = `rgb(${maps.inks[c].join(" ")})`;
      return el("span", { class: "inked" }, mark, name);
    });
    const image = () => el("img", { src: head.file, alt: `Picture for the prompt: ${head.prompt}` });
    return el("figure", { class: "plate layout" },
      el("label", { class: "slide" }, slider, said),
      el("div", { class: "panels two" }, panel("predicted at this step", frame(joint)), panel("the finished picture", frame(image()))),
      el("p", { class: "small" }, keys.length ? keys : "The prompt names nothing that the labels know."),
      el("div", { class: "panels many" }, single.map((target, c) => panel(maps.concepts[c], frame(target)))),
      el("figcaption", {}, el("q", { class: "prompt" }, head.prompt), el("span", { class: "small" }, ` seed ${head.seed}`)));
  }

  try {
    const heads = await Atlas.load("layouts");
    if (!heads.length) throw new Error("This atlas holds no layouts; gazetteer layout predict makes them, gazetteer atlas --layouts shows them.");
    main.replaceChildren(
      el("h1", {}, "What will be where, while it is noise"),
      el("p", { class: "lede" }, "Move a slider from the first step of sampling to the last. The prediction reads every feature that fires at that step, labelled or not, and where each thing stands in other pictures."),
      el("div", { class: "plates" }, await Promise.all(heads.map(sheet))));
  } catch (error) {
    Atlas.complain(main, error.message);
  }
})();

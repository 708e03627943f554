// The layout as it appears: predicted maps, step by step, while the sampler runs and afterwards.
"use strict";

function appearing() {
  const { el } = Atlas;
  const $ = (id) => document.getElementById(id);
  let steps = [];

  function bytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  function canvas(layout, said, colour) {
    const { width, height } = layout;
    const target = el("canvas", { width, height, class: "heat", role: "img", "aria-label": said });
    const context = target.getContext("2d"), image = context.createImageData(width, height);
    for (let cell = 0; cell < width * height; cell++) image.data.set(colour(cell), 4 * cell);
    context.putImageData(image, 0, 0);
    return target;
  }

  /** Of the things predicted in a cell the likeliest, in its own colour. */
  function joint(layout, alpha) {
    const cells = layout.width * layout.height;
    return canvas(layout, "Where each named thing is predicted", (cell) => {
      let best = -1;
      layout.concepts.forEach((_, c) => {
        const i = c * cells + cell;
        if (layout.masks[i] && (best < 0 || layout.levels[i] > layout.levels[best * cells + cell])) best = c;
      });
      return best < 0 ? [0, 0, 0, 0] : [...layout.inks[best], alpha];
    });
  }

  function show() {
    const layout = steps[Number($("step").value)];
    if (!layout) return;
    const cells = layout.width * layout.height;
    $("step-said").textContent = `step ${layout.step + 1} of ${layout.steps}, t = ${layout.t.toFixed(2)}`;
    $("predicted").replaceChildren(joint(layout, 235));
    $("each").replaceChildren(...layout.concepts.map((name, c) => el("div", { class: "panel" },
      el("div", { class: "frame square" }, canvas(layout, `How probable “${name}” is in each cell`, (cell) => {
        const level = layout.levels[c * cells + cell];
        return [...Atlas.heat.colour(level), level ? 210 : 0];
      })), el("p", { class: "panel-title" }, name))));
  }

  function begin() {
    steps = [];
    $("appear").hidden = true;
    $("final").replaceChildren();
  }

  function add(event) {
    if (!event.levels) return;
    steps.push({ ...event, levels: bytes(event.levels), masks: bytes(event.masks) });
    $("appear").hidden = false;
    $("step").max = event.steps - 1;
    $("step").value = steps.length - 1;
    $("legend").replaceChildren(...event.concepts.map((name, c) => {
      const mark = el("span", { class: "ink" });
      mark.style.background = `rgb(${event.inks[c].join(" ")})`;
      return el("span", { class: "inked" }, mark, name);
    }));
    show();
  }

  function finish(source, alt) {
    if (!steps.length) return;
    $("step").max = steps.length - 1;
    $("final").replaceChildren(el("img", { src: source, alt }), joint(steps.at(-1), 95));
  }

  $("step").addEventListener("input", show);
  return { begin, add, finish };
}

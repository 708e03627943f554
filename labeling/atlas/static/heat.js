// Heat maps: a feature's activation, one canvas pixel a cell, stretched over the picture by CSS.
"use strict";

Atlas.heat = (() => {
  // Dark to light: violet, red, amber, pale yellow; weak cells stay see-through.
  const STOPS = [[104, 44, 168], [178, 44, 128], [232, 92, 56], [250, 178, 60], [255, 246, 190]];

  function colour(level) {
    const place = (level / 255) * (STOPS.length - 1);
    const low = Math.min(Math.floor(place), STOPS.length - 2), rest = place - low;
    return STOPS[low].map((c, i) => Math.round(c + (STOPS[low + 1][i] - c) * rest));
  }

  /** Packed pairs (gap to the next cell, level 1–255; level 0 only skips) -> a level per cell. */
  function levels(packed, cells) {
    const bytes = atob(packed);
    const out = new Uint8Array(cells);
    let at = -1;
    for (let i = 0; i + 1 < bytes.length; i += 2) {
      at += bytes.charCodeAt(i);
      if (bytes.charCodeAt(i + 1)) out[at] = bytes.charCodeAt(i + 1);
    }
    return out;
  }

  /** A canvas of the map; `scale` makes levels of different pictures comparable. */
  function draw(packed, height, width, scale, description) {
    const canvas = Atlas.el("canvas", { width, height, role: "img", "aria-label": description, class: "heat" });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    levels(packed, height * width).forEach((level, i) => {
      if (!level) return;
      const shown = Math.max(1, level * scale);
      const [r, g, b] = colour(shown);
      image.data.set([r, g, b, 165 + Math.round(shown * 0.35)], 4 * i);
    });
    context.putImageData(image, 0, 0);
    return canvas;
  }

  return { draw, levels, colour };
})();

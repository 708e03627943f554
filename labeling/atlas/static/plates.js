// Plates: a picture of the run with what lies over it (heat map, outlines) and its caption.
"use strict";

Atlas.plates = (() => {
  const { el, svg } = Atlas;

  /** Load the image records with these numbers; returns a map number -> record. */
  async function records(atlas, numbers) {
    const size = atlas.image_chunk;
    const chunks = [...new Set(numbers.map((n) => Math.floor(n / size)))];
    const parts = await Promise.all(chunks.map((c) => Atlas.load("images/" + c)));
    const byChunk = new Map(chunks.map((c, i) => [c, parts[i]]));
    return new Map(numbers.map((n) => [n, byChunk.get(Math.floor(n / size))[n % size]]));
  }

  function picture(image, alt, className) {
    return el("img", {
      src: "images/" + image.file, alt, class: className, loading: "lazy", decoding: "async",
      width: image.width, height: image.height,
    });
  }

  function frame(image, ...layers) {
    const box = el("div", { class: "frame" }, ...layers);
    box.style.aspectRatio = image.width + " / " + image.height;
    return box;
  }

  /** Outlines of the image's segments whose concept number is in `wanted` (null: all). */
  function outlines(image, wanted, description) {
    const shown = image.segments.filter((s) => wanted === null || wanted.includes(s[0]));
    return shown.map(([, , height, width, counts]) => {
      const d = Atlas.outline.path(height, width, counts);
      return svg("svg", {
        class: "outline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": description,
      }, svg("path", { d, class: "halo" }), svg("path", { d, class: "line" }));
    });
  }

  /** Why a panel has no outline: not asked for, or asked for and not found. */
  function absence(image, number, name) {
    if (number === null) return null;
    if (image.segments.some((s) => s[0] === number)) return null;
    const asked = image.asked.includes(number);
    return el("p", { class: "absence" }, asked ? `no “${name}” found` : `“${name}” was not looked for`);
  }

  function panel(title, body) {
    return el("div", { class: "panel" }, body, el("p", { class: "panel-title" }, title));
  }

  /** The words of a prompt as the text stream holds them, each as strong as the strongest of its tokens. */
  function spoken(image, top, scale) {
    const levels = Atlas.heat.levels(top.map, top.width);
    const line = el("p", { class: "words", "aria-label": "Where in the prompt the feature fires" });
    let next = 0;
    for (const [word, first, last] of image.words) {
      if (first !== next) line.append(el("br", {})); // padding, then the next encoder's words
      next = last + 1;
      const level = Math.max(...levels.slice(first, last + 1)) * scale;
      const run = el("span", { title: `place ${first + 1}${last > first ? "–" + (last + 1) : ""}` }, word === null ? "·" : word);
      if (level > 0) {
        run.style.background = `rgb(${Atlas.heat.colour(level).join(" ")})`;
        run.style.color = level > 150 ? "#000" : "#fff";
      }
      line.append(run, " ");
    }
    return line;
  }

  const inWords = (image, top) => top.height === 1 && image.words;

  /** Three panels side by side: the picture, where the feature fires, where the concept is. */
  function triptych(atlas, image, top, peak, concept) {
    const number = concept === null ? null : atlas.concepts.indexOf(concept);
    const what = `Picture for the prompt: ${image.prompt}`;
    if (inWords(image, top)) {
      return el("figure", { class: "plate" },
        el("div", { class: "panels two" },
          panel("picture", frame(image, picture(image, what))),
          panel("where in the prompt it fires", spoken(image, top, Math.min(1, top.value / peak)))),
        caption(image, `peak ${Atlas.figure(top.value)}`));
    }
    const heat = Atlas.heat.draw(top.map, top.height, top.width, Math.min(1, top.value / peak),
      `Where the feature fires; strongest in row ${top.row + 1}, column ${top.column + 1} of ${top.height} by ${top.width} cells`);
    const names = [...new Set(image.segments.map((s) => atlas.concepts[s[0]]))];
    const third = concept === null
      ? (names.length ? "everything found: " + names.join(", ") : "nothing was found here")
      : "where “" + concept + "” is";
    return el("figure", { class: "plate" },
      el("div", { class: "panels" },
        panel("picture", frame(image, picture(image, what))),
        panel("where it fires", frame(image, picture(image, "", "dimmed"), heat)),
        panel(third, frame(image, picture(image, "", "faded"),
          outlines(image, number === null ? null : [number], "Outline of " + (concept || "a segment")),
          absence(image, number, concept)))),
      caption(image, `peak ${Atlas.figure(top.value)}`));
  }

  /** Two panels: the picture, and where the feature fires in it; `peak` makes plates comparable. */
  function pair(image, top, peak) {
    if (inWords(image, top)) {
      return el("div", { class: "panels two" }, frame(image, picture(image, `Picture for the prompt: ${image.prompt}`)),
        spoken(image, top, Math.min(1, top.value / peak)));
    }
    const heat = Atlas.heat.draw(top.map, top.height, top.width, Math.min(1, top.value / peak), "Where the feature fires");
    return el("div", { class: "panels two" }, frame(image, picture(image, `Picture for the prompt: ${image.prompt}`)),
      frame(image, picture(image, "", "dimmed"), heat));
  }

  /** One picture with the outlines of one concept. */
  function outlined(atlas, image, concept) {
    const number = atlas.concepts.indexOf(concept);
    return el("figure", { class: "plate single" },
      frame(image, picture(image, `Picture for the prompt: ${image.prompt}`),
        outlines(image, [number], "Outline of " + concept), absence(image, number, concept)),
      caption(image, Atlas.many(image.segments.filter((s) => s[0] === number).length, "segment")));
  }

  function caption(image, extra) {
    return el("figcaption", {},
      el("q", { class: "prompt" }, image.prompt),
      el("span", { class: "small" }, ` ${extra} · seed ${image.seed} · ${image.split === "heldout" ? "held out" : image.split}`));
  }

  return { records, triptych, pair, outlined };
})();

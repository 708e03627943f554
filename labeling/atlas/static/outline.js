// Masks: from COCO's compressed run lengths to pixels, and from pixels to smooth outlines.
"use strict";

Atlas.outline = (() => {
  /** COCO compressed counts -> run lengths (background first). */
  function runs(text) {
    const lengths = [];
    let at = 0;
    while (at < text.length) {
      let value = 0, shift = 0, more = true;
      while (more) {
        const bits = text.charCodeAt(at++) - 48;
        value |= (bits & 31) << shift;
        shift += 5;
        more = (bits & 32) !== 0;
        if (!more && bits & 16) value |= -1 << shift;
      }
      lengths.push(lengths.length > 2 ? value + lengths[lengths.length - 2] : value);
    }
    return lengths;
  }

  /** Run lengths (column-major) -> row-major bytes, 1 inside. */
  function pixels(height, width, text) {
    const inside = new Uint8Array(height * width);
    let at = 0, on = false;
    for (const length of runs(text)) {
      if (on) {
        for (let i = at; i < at + length; i++) inside[(i % height) * width + Math.floor(i / height)] = 1;
      }
      at += length;
      on = !on;
    }
    return inside;
  }

  /** The directed pixel edges around a mask, clockwise: corner -> the corners that follow it. */
  function edges(inside, height, width) {
    const next = new Map();
    const add = (x0, y0, x1, y1) => {
      const from = y0 * (width + 1) + x0, to = y1 * (width + 1) + x1;
      if (next.has(from)) next.get(from).push(to); else next.set(from, [to]);
    };
    const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!inside[y * width + x]) continue;
        if (!at(x, y - 1)) add(x, y, x + 1, y);
        if (!at(x + 1, y)) add(x + 1, y, x + 1, y + 1);
        if (!at(x, y + 1)) add(x + 1, y + 1, x, y + 1);
        if (!at(x - 1, y)) add(x, y + 1, x, y);
      }
    }
    return next;
  }

  /** Closed rings through the middles of those edges (which turns stair steps into slopes). */
  function rings(inside, height, width) {
    const next = edges(inside, height, width);
    const found = [];
    for (const start of next.keys()) {
      while (next.get(start).length) {
        const ring = [];
        let from = start;
        do {
          const to = next.get(from).pop();
          const span = width + 1;
          ring.push([(from % span + to % span) / 2, (Math.floor(from / span) + Math.floor(to / span)) / 2]);
          from = to;
        } while (from !== start);
        found.push(ring);
      }
    }
    return found;
  }

  /** Douglas–Peucker: drop points closer than `slack` to the line between those kept. */
  function simplify(points, slack) {
    const keep = new Uint8Array(points.length);
    keep[0] = keep[points.length - 1] = 1;
    const todo = [[0, points.length - 1]];
    while (todo.length) {
      const [a, b] = todo.pop();
      const [ax, ay] = points[a], dx = points[b][0] - ax, dy = points[b][1] - ay;
      const long = Math.hypot(dx, dy);
      let far = slack, at = -1;
      for (let i = a + 1; i < b; i++) {
        const px = points[i][0] - ax, py = points[i][1] - ay;
        const away = long ? Math.abs(px * dy - py * dx) / long : Math.hypot(px, py);
        if (away > far) { far = away; at = i; }
      }
      if (at >= 0) { keep[at] = 1; todo.push([a, at], [at, b]); }
    }
    return points.filter((_, i) => keep[i]);
  }

  /** SVG path data around one mask, in the mask's own pixels. */
  function path(height, width, text) {
    const slack = Math.max(height, width) / 320;
    return rings(pixels(height, width, text), height, width)
      .map((ring) => simplify([...ring, ring[0]], slack))
      .map((ring) => "M" + ring.slice(0, -1).map(([x, y]) => x + " " + y).join("L") + "Z")
      .join("");
  }

  return { runs, pixels, path };
})();

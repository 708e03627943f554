// Small charts as inline SVG: a scale bar for one label, and IoU over t, one panel a block and branch.
"use strict";

Atlas.chart = (() => {
  const { el, svg, ratio } = Atlas;
  const W = 216, H = 124, LEFT = 30, RIGHT = 2, TOP = 10, BOTTOM = 26, INSET = 12;

  /** A map's scale bar from 0 to 1 with three marks: chance, data set, held out. */
  function scaleBar(label) {
    const x = (v) => 8 + 384 * v;
    const said = `IoU ${ratio(label.dataset_iou)}, chance ${ratio(label.null_iou)}, held out ${ratio(label.heldout_dataset_iou)}`;
    const bar = svg("svg", { class: "scalebar", viewBox: "0 0 400 44", role: "img", "aria-label": said });
    for (let i = 0; i < 10; i++) {
      bar.append(svg("rect", { x: x(i / 10), y: 20, width: 38.4, height: 6, class: i % 2 ? "off" : "on" }));
    }
    for (const v of [0, 0.5, 1]) bar.append(svg("text", { x: x(v), y: 41, class: "tick" }, String(v)));
    if (label.null_iou !== null) {
      bar.append(svg("path", { d: `M${x(label.null_iou)} 18l-6 -12h12z`, class: "chance" }));
    }
    if (label.dataset_iou !== null) {
      bar.append(svg("path", { d: `M${x(label.dataset_iou)} 18l-6 -12h12z`, class: "mark" }));
    }
    if (label.heldout_dataset_iou !== null) {
      bar.append(svg("circle", { cx: x(label.heldout_dataset_iou), cy: 23, r: 5.5, class: "ring" }));
    }
    return bar;
  }

  function niceTop(values) {
    const most = Math.max(0.1, ...values);
    return Math.min(1, Math.ceil(most * 10) / 10);
  }

  /** One panel: the points of one block and branch, left = first sampler step. */
  function panel(points, scale, here) {
    const x = (t) => LEFT + INSET + (1 - t) * (W - LEFT - RIGHT - 2 * INSET);
    const y = (v) => H - BOTTOM - (Math.min(v, scale) / scale) * (H - TOP - BOTTOM);
    const box = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}` });
    for (const v of [0, scale / 2, scale]) {
      box.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v), class: "grid" }),
        svg("text", { x: LEFT - 5, y: y(v) + 3.5, class: "tick end" }, String(Number(v.toFixed(2)))));
    }
    for (const t of [...new Set(points.map((p) => p.site.t))]) {
      box.append(svg("text", { x: x(t), y: H - 10, class: "tick" }, String(Number(t.toFixed(2)))));
    }
    const known = points.filter((p) => p.best);
    const line = (key) => known.filter((p) => p.best[key] !== null).map((p) => `${x(p.site.t)},${y(p.best[key])}`).join(" ");
    box.append(svg("polyline", { points: line("held"), class: "held" }), svg("polyline", { points: line("iou"), class: "iou" }));
    for (const p of points) box.append(p.best ? mark(p, x, y, here) : gap(p, x));
    return box;
  }

  function gap(point, x) {
    return svg("text", { x: x(point.site.t), y: H - BOTTOM - 4, class: "gap" }, "none",
      svg("title", {}, "No feature of this site carries the name"));
  }

  function mark(point, x, y, here) {
    const { site, best } = point;
    const text = `t ${site.t.toFixed(2)}: feature ${best.f}, IoU ${ratio(best.iou)}, chance ${ratio(best.chance)}, held out ${ratio(best.held)}`;
    const at = x(site.t);
    return svg("a", { href: point.href, "aria-label": text, class: site === here ? "here" : null },
      svg("title", {}, text),
      svg("rect", { x: at - 12, y: TOP - 6, width: 24, height: H - BOTTOM - TOP + 12, class: "target" }),
      best.chance === null ? null : svg("line", { x1: at - 7, x2: at + 7, y1: y(best.chance), y2: y(best.chance), class: "null" }),
      best.held === null ? null : svg("circle", { cx: at, cy: y(best.held), r: 4, class: "ring" }),
      svg("circle", { cx: at, cy: y(best.iou), r: site === here ? 5.5 : 3.5, class: "dot" }));
  }

  /** Small multiples of a concept over every site; `best` has one entry (or null) a site. */
  function multiples(atlas, concept, best, here) {
    const scale = niceTop(best.flatMap((b) => (b ? [b.iou, b.held || 0, b.chance || 0] : [])));
    const groups = new Map();
    atlas.sites.forEach((site, i) => {
      const key = site.port + " " + site.branch;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push({ site, best: best[i], href: best[i] ? Atlas.featureLink(site, best[i].f, concept) : null });
    });
    const branches = new Set(atlas.sites.map((s) => s.branch)).size;
    return el("div", { class: "multiples" }, [...groups.values()].map((points) => {
      points.sort((a, b) => b.site.t - a.site.t);
      const { port, branch } = points[0].site;
      return el("figure", { class: "multiple block-" + points[0].site.tint },
        el("figcaption", { title: port }, Atlas.shortBlock(port), branches > 1 ? el("span", { class: "small" }, " " + branch) : null),
        points.some((p) => p.best) ? panel(points, scale, here) : el("p", { class: "nothing" }, "no feature here carries the name"));
    }));
  }

  /** What a chart draws, drawn the same for its legend. */
  function symbol(kind) {
    const shapes = {
      dot: () => svg("circle", { cx: 8, cy: 8, r: 3.5, class: "dot" }),
      ring: () => svg("circle", { cx: 8, cy: 8, r: 4, class: "ring" }),
      null: () => svg("line", { x1: 1, x2: 15, y1: 8, y2: 8, class: "null" }),
      mark: () => svg("path", { d: "M8 14l-6 -12h12z", class: "mark" }),
      chance: () => svg("path", { d: "M8 14l-6 -12h12z", class: "chance" }),
    };
    return svg("svg", { class: "symbol chart scalebar", viewBox: "0 0 16 16", "aria-hidden": "true" }, shapes[kind]());
  }

  function key() {
    return el("p", { class: "key small" },
      symbol("dot"), "the site’s best feature, IoU on the discovery pictures ",
      symbol("ring"), "the same feature on held-out pictures ",
      symbol("null"), "what chance gives. ",
      "t runs from 1 (first sampler step, left) to 0 (last). Each point leads to its feature.");
  }

  return { scaleBar, multiples, key, symbol };
})();

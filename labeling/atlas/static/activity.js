// How a feature fires: a histogram of its activations, pictures from strong to weak, and its company.
"use strict";

Atlas.activity = (() => {
  const { el, svg, figure, percent, count } = Atlas;
  const W = 520, H = 130, BOTTOM = 22, LEFT = 2;

  /** Bars on a logarithmic scale: most activations are weak, and the few strong ones matter. */
  function histogram(feature) {
    const bins = feature.histogram, step = (W - LEFT) / bins.length;
    const most = Math.log1p(Math.max(...bins));
    const said = `Histogram of ${count(bins.reduce((a, b) => a + b, 0))} activations from 0 to ${figure(feature.max)}`;
    const box = svg("svg", { class: "histogram", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": said });
    bins.forEach((n, i) => {
      const tall = n ? Math.max(2, (Math.log1p(n) / most) * (H - BOTTOM - 4)) : 0;
      box.append(svg("rect", { x: LEFT + i * step + 1, y: H - BOTTOM - tall, width: step - 2, height: tall, class: "bar-of" },
        svg("title", {}, `${count(n)} cells from ${figure((feature.max * i) / bins.length)} to ${figure((feature.max * (i + 1)) / bins.length)}`)));
    });
    box.append(svg("line", { x1: LEFT, x2: W, y1: H - BOTTOM, y2: H - BOTTOM, class: "base" }));
    for (const share of [0, 0.5, 1]) {
      box.append(svg("text", { x: LEFT + share * (W - LEFT), y: H - 6, class: "tick " + ["start", "", "end"][2 * share] }, share ? figure(share * feature.max) : "0"));
    }
    return box;
  }

  /** What the place of a picture among the feature's pictures is called. */
  function rank(quantile) {
    return quantile > 0.985 ? "among its strongest pictures" : `stronger than ${percent(quantile)} of its pictures`;
  }

  function example(images, one, peak) {
    const image = images.get(one.image);
    return el("figure", { class: "plate single" },
      Atlas.plates.pair(image, one, peak),
      el("figcaption", {}, el("span", { class: "small" }, rank(one.quantile) + ` · peak ${figure(one.value)}`), " ", el("q", { class: "prompt" }, image.prompt)));
  }

  async function examples(atlas, feature) {
    const rows = feature.examples.map((e) => Atlas.record(["quantile", "image", "value", "row", "column", "height", "width", "map"], e));
    if (!rows.length) return null;
    const images = await Atlas.plates.records(atlas, rows.map((r) => r.image));
    return el("div", { class: "gallery examples" }, rows.map((one) => example(images, one, feature.max)));
  }

  function company(atlas, site, title, note, rows, unit) {
    if (!rows.length) return null;
    return el("div", { class: "company" }, el("h3", {}, title), el("p", { class: "note" }, note),
      el("ol", {}, rows.map(([other, share, concept]) => {
        const name = concept === null ? null : atlas.concepts[concept], bar = el("i", { class: "level" });
        bar.style.width = 100 * Math.max(0, Math.min(1, share)) + "%";
        return el("li", {}, el("a", { href: Atlas.featureLink(site, other) },
          el("b", { class: name ? null : "unnamed" }, name || "unnamed"), el("span", { class: "small" }, ` no. ${other}`)),
        el("span", { class: "small amount" }, unit(share)), el("span", { class: "bar" }, bar));
      })));
  }

  /** The section of a feature's page; null for one that never fired. */
  async function section(atlas, site, feature) {
    if (!feature.histogram.length) return null;
    const sampled = site.sampled < 1 ? ` Counted on ${percent(site.sampled)} of the pictures.` : "";
    const together = company(atlas, site, "Fires together with", "Of the cells where either fires, the share where both do." + sampled, feature.partners, percent);
    const alike = company(atlas, site, "Points the same way as", "Cosine of the vectors that the autoencoder adds for them.", feature.alike, (x) => x.toFixed(2));
    const weaker = await examples(atlas, feature);
    return el("section", { "aria-labelledby": "activity-title" }, el("h2", { id: "activity-title" }, "How it fires"),
      el("p", { class: "note" }, "How often each activation occurs, over all cells in which it fires; the height is logarithmic."),
      histogram(feature),
      weaker ? [el("p", { class: "note later" }, "Pictures from its whole range, not only the best: what it does when it fires weakly says as much."), weaker] : null,
      together || alike ? el("div", { class: "companies" }, together, alike) : null);
  }

  return { section };
})();

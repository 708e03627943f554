// One feature's page, addressed as feature.html#site=<slug>&f=<number>[&label=<name>].
"use strict";

(async () => {
  const { el } = Atlas;
  const main = document.getElementById("main");
  let neighbours = [null, null];

  /** The site, and the chunk and row of the feature in it; an Error with a sentence otherwise. */
  async function locate(atlas) {
    const query = Atlas.address();
    const site = atlas.sites.find((s) => s.slug === query.get("site"));
    const number = Number(query.get("f"));
    if (!site) throw new Error("The address names no site of this atlas; choose a feature in the index.");
    let chunk = site.starts.length - 1;
    while (chunk > 0 && site.starts[chunk] > number) chunk--;
    const rows = await Atlas.load(site.folder + "/" + chunk);
    const row = rows.findIndex((r) => r.f === number);
    if (row < 0) throw new Error(`There is no feature ${query.get("f")} at ${site.slug}.`);
    const next = row + 1 < rows.length ? rows[row + 1].f : site.starts[chunk + 1];
    let before = row > 0 ? rows[row - 1].f : null;
    if (row === 0 && chunk > 0) before = (await Atlas.load(site.folder + "/" + (chunk - 1))).at(-1).f;
    return { site, packed: rows[row], before, next: next === undefined ? null : next, wanted: query.get("label") };
  }

  function unpack(atlas, packed) {
    const names = (columns, rows) => rows.map((row) => {
      const label = Atlas.record(columns, row);
      return { ...label, concept: atlas.concepts[label.concept] };
    });
    const top = packed.top.map((t) => Atlas.record(["image", "value", "row", "column", "height", "width", "map"], t));
    return { ...packed, labels: names(atlas.label_columns, packed.labels), near: names(atlas.near_columns, packed.near), top };
  }

  function heading(site, feature, label) {
    const others = feature.labels.filter((l) => l !== label);
    return el("header", { class: "title" },
      el("p", { class: "place", title: site.port },
        el("b", { class: "chip" }, Atlas.shortBlock(site.port)), ` ${site.port} · ${site.branch} · t ${site.t.toFixed(2)}`),
      el("h1", {}, label
        ? el("a", { href: Atlas.conceptLink(label.concept), title: "Every feature of this name" }, label.concept)
        : el("span", { class: "unnamed" }, feature.dead ? "silent" : "unnamed"),
      label ? el("span", { class: "kind", title: "What kind of name this is" }, ` ${label.kind}`) : null,
      el("span", { class: "number" }, ` no. ${feature.f}`)),
      others.length ? el("p", { class: "others" }, "also ", others.map((l, i) => [
        i ? ", " : "", el("a", { href: Atlas.featureLink(site, feature.f, l.concept) }, l.concept)])) : null);
  }

  function steps(site, before, next) {
    const go = (number, text, rel) => (number === null ? el("span", { class: "off" }, text)
      : el("a", { href: Atlas.featureLink(site, number), rel }, text));
    return el("nav", { class: "steps", "aria-label": "Neighbouring features" },
      go(before, "← " + (before === null ? "first" : "no. " + before), "prev"), go(next, (next === null ? "last" : "no. " + next) + " →", "next"));
  }

  async function plates(atlas, site, feature, label) {
    if (!feature.top.length) return null;
    const images = await Atlas.plates.records(atlas, feature.top.map((t) => t.image));
    const peak = Math.max(...feature.top.map((t) => t.value));
    return el("section", { "aria-labelledby": "plates-title" },
      el("h2", { id: "plates-title" }, "Plates"),
      el("p", { class: "note" }, `The pictures in which it fires most over the whole ${site.stream === "text" ? "prompt" : "frame"}, strongest first. Pale yellow is its peak over all of these plates, violet the weakest activation; ` +
        "where there is no colour it is silent. " + (site.stream === "text" ? "A word has the colour of its strongest token; dots are signs and the ends of the text." : "Each square is one cell of the network’s grid.")),
      el("div", { class: "plates" }, feature.top.map((t) => Atlas.plates.triptych(atlas, images.get(t.image), t, peak, label ? label.concept : null))));
  }

  async function elsewhere(atlas, site, label) {
    if (!label) return null;
    const number = atlas.concepts.indexOf(label.concept);
    const size = atlas.concept_chunk;
    const entry = (await Atlas.load("concepts/" + Math.floor(number / size)))[number % size];
    const best = entry.best.map((list) => (list.length ? Atlas.record(["f", "iou", "chance", "held", "q"], list[0]) : null));
    return el("section", { "aria-labelledby": "elsewhere-title" },
      el("h2", { id: "elsewhere-title" }, `“${label.concept}” at the other sites`),
      Atlas.chart.key(), Atlas.chart.multiples(atlas, label.concept, best, site),
      el("p", {}, el("a", { href: Atlas.conceptLink(label.concept) }, `Every feature called “${label.concept}”`)));
  }

  async function show() {
    const atlas = await Atlas.load("atlas");
    const { site, packed, before, next, wanted } = await locate(atlas);
    const feature = unpack(atlas, packed);
    const label = feature.labels.find((l) => l.concept === wanted) || feature.labels[0] || null;
    neighbours = [before, next].map((n) => (n === null ? null : Atlas.featureLink(site, n)));
    document.title = `${label ? label.concept : "unnamed"}, no. ${feature.f} · Gazetteer`;
    main.className = "block-" + site.tint;
    const evidence = label
      ? [el("p", { class: "lede" }, Atlas.evidence.sentence(label)), Atlas.chart.scaleBar(label),
        el("p", { class: "key small" }, Atlas.chart.symbol("mark"), "overlap ", Atlas.chart.symbol("ring"), "held out ",
          Atlas.chart.symbol("chance"), "chance, on a scale from 0 to 1 (identical)")]
      : Atlas.evidence.unnamed(feature);
    const [pictures, activity, sites] = await Promise.all([plates(atlas, site, feature, label), Atlas.activity.section(atlas, site, feature), elsewhere(atlas, site, label)]);
    main.replaceChildren(...[
      el("div", { class: "top" }, heading(site, feature, label), steps(site, before, next)),
      el("section", { class: "evidence", "aria-label": "Evidence" }, evidence), pictures, activity,
      Atlas.causal.section(atlas, feature),
      el("section", { "aria-labelledby": "ledger-title" }, el("h2", { id: "ledger-title" }, "The numbers"),
        el("div", { class: "ledgers" }, label ? Atlas.evidence.ledger(label) : null, Atlas.evidence.activity(feature))),
      sites].filter(Boolean));
    window.scrollTo(0, 0);
  }

  function run() {
    show().catch((error) => Atlas.complain(main, error.message));
  }

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);  // a note, where these are served
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || typing) return;
    const to = { ArrowLeft: neighbours[0], ArrowRight: neighbours[1] }[event.key];
    if (to) location.href = to;
  });
  window.addEventListener("hashchange", run);
  run();
})();

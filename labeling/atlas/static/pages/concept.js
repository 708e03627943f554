// One name's page, addressed as concept.html#c=<name>; without a name, the A–Z.
"use strict";

(async () => {
  const { el, ratio, figure, many } = Atlas;
  const main = document.getElementById("main");
  const FIELDS = ["f", "iou", "chance", "held", "q"];

  function row(atlas, concept, site, best) {
    return el("tr", { class: "block-" + site.tint },
      el("th", { scope: "row" }, el("a", { href: Atlas.featureLink(site, best.f, concept) }, "no. " + best.f)),
      el("td", { title: site.port }, el("b", { class: "chip" }, Atlas.shortBlock(site.port))),
      el("td", {}, site.branch), el("td", {}, site.t.toFixed(2)),
      el("td", {}, ratio(best.iou)), el("td", {}, ratio(best.chance)), el("td", {}, ratio(best.held)), el("td", {}, figure(best.q)));
  }

  /** The best features of every site, strongest above chance first; a long table is cut at 60 rows. */
  function table(atlas, concept, entry) {
    const all = entry.best.flatMap((list, i) => list.map((b) => ({ site: atlas.sites[i], best: Atlas.record(FIELDS, b) })));
    all.sort((a, b) => (b.best.iou - (b.best.chance || 0)) - (a.best.iou - (a.best.chance || 0)));
    const head = [["feature", ""], ["block", ""], ["branch", ""], ["t", "1 is the first sampler step, 0 the last"],
      ["IoU", "Overlap with the name on the discovery pictures"], ["chance", "What shuffled pictures give"],
      ["held out", "Overlap on pictures that took no part in choosing the name"], ["q", "Share of names to expect false among those as convincing"]];
    return el("section", { "aria-labelledby": "best-title" }, el("h2", { id: "best-title" }, "Best features"),
      el("p", { class: "note" }, "Up to five a site, those furthest above chance first."),
      el("div", { class: "scroll" }, el("table", { class: "best" },
        el("thead", {}, el("tr", {}, head.map(([text, title]) => el("th", { scope: "col", title: title || null }, text)))),
        el("tbody", {}, all.slice(0, 60).map(({ site, best }) => row(atlas, concept, site, best))))));
  }

  async function gallery(atlas, concept, entry) {
    if (!entry.images.length) return null;
    const images = await Atlas.plates.records(atlas, entry.images);
    return el("section", { "aria-labelledby": "plates-title" }, el("h2", { id: "plates-title" }, "Plates"),
      el("p", { class: "note" }, `Pictures in which “${concept}” was found, with the outlines that the evidence rests on.`),
      el("div", { class: "gallery" }, entry.images.map((n) => Atlas.plates.outlined(atlas, images.get(n), concept))));
  }

  async function show() {
    const atlas = await Atlas.load("atlas");
    const concept = Atlas.address().get("c");
    if (concept === null) return Atlas.names.show(atlas, main);
    const number = atlas.concepts.indexOf(concept);
    if (number < 0) throw new Error(`“${concept}” is not a name in this atlas; see the names A–Z.`);
    const entry = (await Atlas.load("concepts/" + Math.floor(number / atlas.concept_chunk)))[number % atlas.concept_chunk];
    document.title = concept + " · Gazetteer";
    const best = entry.best.map((list) => (list.length ? Atlas.record(FIELDS, list[0]) : null));
    const sites = best.filter(Boolean).length;
    const said = sites
      ? `${many(atlas.carriers[number], "feature")} carry this name, at ${sites} of ${many(atlas.sites.length, "site")}; it was found in ${many(entry.found, "picture")}.`
      : `No feature carries this name in a way that can be trusted, though it was found in ${many(entry.found, "picture")}.`;
    const pictures = await gallery(atlas, concept, entry);
    main.replaceChildren(...[
      el("header", { class: "title" }, el("h1", {}, concept), el("p", { class: "lede" }, said.replace("1 feature carry", "1 feature carries"))),
      sites ? el("section", { "aria-labelledby": "sites-title" }, el("h2", { id: "sites-title" }, "Over the network, over time"),
        Atlas.chart.key(), Atlas.chart.multiples(atlas, concept, best, null)) : null,
      pictures, sites ? table(atlas, concept, entry) : null,
      el("p", {}, el("a", { href: "index.html#" + new URLSearchParams({ q: concept }) }, "Find it in the index of features"))].filter(Boolean));
    window.scrollTo(0, 0);
  }

  function run() {
    show().catch((error) => Atlas.complain(main, error.message));
  }

  window.addEventListener("hashchange", run);
  run();
})();

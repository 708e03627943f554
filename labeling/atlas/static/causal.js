// Causal evidence: what appears and vanishes when the feature is switched on, beside a random one.
"use strict";

Atlas.causal = (() => {
  const { el } = Atlas;
  const MEANING = {
    confirmed: "confirmed: its name appears",
    contradicted: "contradicted: its name vanishes",
    "no effect": "no sure effect on its name",
    undecided: "undecided: too few pictures to tell",
    "effect without label": "appears, though it is not a name of this feature",
    suppressed: "vanishes",
    none: "no sure effect",
  };

  function points(x) {
    return x === null ? "–" : (x > 0 ? "+" : x < 0 ? "−" : "") + Math.abs(100 * x).toFixed(1);
  }

  function cell(label, row, name) {
    const [low, high] = [row[name + "_low"], row[name + "_high"]];
    const ends = low === null ? "" : ` [${points(low)}, ${points(high)}]`; // one prompt alone has no interval
    return el("td", { "data-label": label }, el("b", {}, points(row[name])), ends);
  }

  /** The section, or null where the feature was not tried. */
  function section(atlas, feature) {
    if (!feature.causal.length) return null;
    const rows = feature.causal.map((packed) => Atlas.record(atlas.causal_columns, packed));
    const first = rows[0];
    const pictures = Atlas.many(first.images, "picture");
    return el("section", { "aria-labelledby": "causal-title" },
      el("h2", { id: "causal-title" }, "What it causes"),
      el("p", { class: "note" }, `Switched on in ${pictures}, beside another feature of the same place, drawn at random, at the same dose. `,
        "Changes in hundredths of the frame’s area, and in hundredths of the pictures, with 95 % intervals. Names of the feature come first, then whatever else surely changes."),
      el("div", { class: "scroll" }, el("table", { class: "best causal" },
        el("thead", {}, el("tr", {}, ["Thing", "Area, on less random", "Area, on", "Area, random", "Presence, on less random", "q", "Verdict"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows.map((row) => el("tr", {},
          el("th", { scope: "row" }, el("a", { href: Atlas.conceptLink(atlas.concepts[row.concept]) }, atlas.concepts[row.concept])),
          cell("area", row, "area"), cell("on", row, "area_on"), cell("random", row, "area_random"), cell("presence", row, "presence"),
          el("td", {}, Atlas.figure(row.q_value)), el("td", { class: "verdict" }, MEANING[row.verdict] || row.verdict)))))));
  }

  return { section };
})();

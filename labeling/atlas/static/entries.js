// The index page's pieces: the sheets table and the entries of the list.
"use strict";

Atlas.entries = (() => {
  const { el, ratio, percent, count } = Atlas;

  /** The file of an image; ids were checked to be safe file names when the atlas was written. */
  function thumb(index, site, at) {
    const number = index.top[at];
    if (number < 0) return el("span", { class: "thumb empty" });
    const box = el("span", { class: "thumb" },
      el("img", { src: "images/" + index.images[number] + index.suffix, alt: "", loading: "lazy", decoding: "async" }));
    if (site.grid && site.stream !== "text") {
      const [height, width] = site.grid, cell = index.cell[at];
      const ring = el("i", { class: "spot" });
      ring.style.left = (100 * ((cell % width) + 0.5)) / width + "%";
      ring.style.top = (100 * (Math.floor(cell / width) + 0.5)) / height + "%";
      box.append(ring);
    }
    return box;
  }

  function numbers(atlas, index, i, row) {
    const fires = el("span", { title: "The share of all picture cells in which the feature is active." },
      "fires in ", el("b", {}, percent(index.density[i])));
    if (row < 0) return el("p", { class: "numbers" }, fires);
    const explains = el("span", { title: "The share of the activation’s variance that the name accounts for." },
      "explains ", el("b", {}, percent(index.explained[row] / 1000)));
    if (["scene", "style", "place"].includes(atlas.kinds[index.kind[row]])) return el("p", { class: "numbers" }, explains, fires);
    const iou = index.iou[row] / 1000, chance = (index.chance[row] || 0) / 1000;
    const held = index.held[row] === null ? null : index.held[row] / 1000;
    return el("p", { class: "numbers" },
      el("span", { title: `Overlap (IoU) ${ratio(iou)}, of which ${ratio(chance)} is what shuffled pictures give too.` },
        el("b", {}, (iou >= chance ? "+" : "−") + ratio(Math.abs(iou - chance))), " above chance"),
      el("span", { title: "The overlap on pictures that took no part in choosing the name." },
        el("b", {}, ratio(held)), " held out"),
      fires);
  }

  /** One entry of the list: pictures with the strongest cell ringed, the name, the place, three numbers. */
  function entry(atlas, index, i, row) {
    const site = atlas.sites[index.site[i]];
    const names = [];
    for (let r = index.first[i]; r < index.first[i + 1]; r++) if (r !== row) names.push(atlas.concepts[index.concept[r]]);
    const name = row < 0 ? null : atlas.concepts[index.concept[row]];
    const shown = 3;
    return el("li", {}, el("a", { class: "entry block-" + site.tint, href: Atlas.featureLink(site, index.f[i], name) },
      el("span", { class: "strip" }, Array.from({ length: shown }, (_, j) => thumb(index, site, i * shown + j))),
      el("span", { class: "name" + (name ? "" : " unnamed") }, name || (index.density[i] > 0 ? "unnamed" : "silent")),
      name ? el("span", { class: "kind" }, atlas.kinds[index.kind[row]]) : null,
      names.length ? el("span", { class: "also" }, "also " + names.join(", ")) : null,
      el("span", { class: "place", title: site.port },
        el("b", { class: "chip" }, Atlas.shortBlock(site.port)),
        ` ${site.branch} · t ${site.t.toFixed(2)} · no. ${index.f[i]}`),
      numbers(atlas, index, i, row)));
  }

  /** The table of sites: rows blocks, columns branch and t; every filled cell chooses its site. */
  function sheets(atlas, choose) {
    const columns = [...new Set(atlas.sites.map((s) => s.branch + " " + s.t.toFixed(2)))]
      .map((key) => key.split(" "))
      .sort((a, b) => a[0].localeCompare(b[0]) || b[1] - a[1]);
    const branches = [...new Set(columns.map((c) => c[0]))];
    const head = el("thead", {},
      branches.length > 1 ? el("tr", {}, el("td", {}), branches.map((branch) =>
        el("th", { scope: "colgroup", colspan: columns.filter((c) => c[0] === branch).length, class: "branch" }, branch))) : null,
      el("tr", {}, el("td", {}), columns.map(([, t]) => el("th", { scope: "col" }, "t " + t))));
    const rows = atlas.blocks.map((block) => {
      const inBlock = atlas.sites.filter((s) => s.port === block);
      return el("tr", { class: "block-" + inBlock[0].tint },
        el("th", { scope: "row", title: block }, Atlas.shortBlock(block)),
        columns.map(([branch, t]) => {
          const site = inBlock.find((s) => s.branch === branch && s.t.toFixed(2) === t);
          return el("td", {}, site ? sheet(site, choose) : null);
        }));
    });
    return el("table", { class: "sheets" }, head, el("tbody", {}, rows));
  }

  function sheet(site, choose) {
    const said = `${site.labelled} of ${site.n} features named, ${site.dead} silent: ${site.port}, ${site.branch}, t ${site.t.toFixed(2)}`;
    const button = el("button", { type: "button", class: "sheet", "aria-label": said, title: said, onclick: () => choose(site) },
      el("b", {}, count(site.labelled)), el("span", { class: "small" }, "of " + count(site.n)),
      el("i", { class: "level" }));
    button.site = site;
    button.lastChild.style.width = (100 * site.labelled) / Math.max(1, site.n) + "%";
    return button;
  }

  return { entry, sheets };
})();

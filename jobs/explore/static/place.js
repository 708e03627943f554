// A place of the picture: which features fire there, at every block and t, with their names.
"use strict";

function places(take, picture) {
  const { el, port, shortBlock } = Atlas;
  const box = document.getElementById("here"), heat = document.getElementById("heat"), pin = document.getElementById("pin");
  let latest = 0;

  function hide() {
    box.hidden = heat.hidden = pin.hidden = true;
  }

  function overlay(site, feature) {
    const drawn = Atlas.heat.draw(feature.map, site.height, site.width, 1, "");
    Object.assign(heat, { width: site.width, height: site.height, hidden: false });
    heat.getContext("2d").drawImage(drawn, 0, 0);
  }

  function row(site, feature) {
    const what = { block: site.block, stream: site.stream, signal: site.signal, branch: site.branch, t: site.t, feature: feature.feature, name: feature.name };
    const bar = el("i", { class: "level" });
    bar.style.width = Math.round(100 * Math.min(1, feature.share || 0)) + "%";
    const said = feature.share === null ? "fires nowhere else in this run" : `${Math.round(100 * feature.share)} % of its largest activation`;
    return el("li", { onpointerenter: () => overlay(site, feature), onpointerleave: () => { heat.hidden = true; } },
      el("a", { href: Atlas.featureLink(site, feature.feature), title: said, onfocus: () => overlay(site, feature), onblur: () => { heat.hidden = true; } },
        el("b", { class: feature.name ? null : "unnamed" }, feature.name || "unnamed"), el("span", { class: "small" }, ` no. ${feature.feature}`)),
      el("button", { type: "button", class: "mini", title: "Paint with this feature", onclick: () => take(what) }, "paint"),
      el("span", { class: "bar", title: said }, bar));
  }

  function cell(site) {
    if (!site) return el("td", {});
    return el("td", {}, site.features.length ? el("ul", { class: "firing" }, site.features.map((f) => row(site, f))) : el("p", { class: "small" }, "nothing fires"));
  }

  function table(sites) {
    const ports = [...new Set(sites.map(port))], branches = [...new Set(sites.map((s) => s.branch))];
    const times = [...new Set(sites.map((s) => s.t))].sort((a, b) => b - a);
    const tint = (one) => "block-" + (ports.indexOf(one) % 12);
    return branches.map((branch) => el("div", { class: "scroll" }, el("table", { class: "firing-table" },
      el("caption", {}, branches.length > 1 ? branch : ""),
      el("thead", {}, el("tr", {}, el("td", {}), times.map((t) => el("th", { scope: "col" }, "t " + t.toFixed(2))))),
      el("tbody", {}, ports.map((one) => el("tr", { class: tint(one) },
        el("th", { scope: "row", title: one }, shortBlock(one)),
        times.map((t) => cell(sites.find((s) => port(s) === one && s.branch === branch && s.t === t)))))))));
  }

  function left(worded) {
    return worded.length ? ` The text stream (${worded.length === 1 ? "1 site" : worded.length + " sites"}) is left out: words lie nowhere in a picture.` : "";
  }

  async function look({ x, y }) {
    const mine = ++latest, of = picture();
    if (!of) return;
    pin.style.left = 100 * x + "%";
    pin.style.top = 100 * y + "%";
    pin.hidden = false;
    const { sites, left_out: worded } = await Asking.post("api/place", { ...of, x: Math.max(0, Math.min(1, x)), y: Math.max(0, Math.min(1, y)) });
    if (mine !== latest) return;
    box.replaceChildren(el("h2", { id: "here-title" }, "What fires here"),
      el("p", { class: "note" }, `At ${Math.round(100 * x)} % from the left and ${Math.round(100 * y)} % from the top: of every site, the features that come nearest to their own largest activation. Point at one to see where else it fires.${left(worded)}`),
      ...table(sites));
    box.hidden = false;
  }

  return { look, hide };
}

// The page's foundation: building elements from text, loading data files, formatting numbers.
// Data files are plain scripts that call Atlas.put(key, value): a page opened from disk may load
// a script beside it, but not fetch a JSON file.
"use strict";

const Atlas = (() => {
  const shelf = new Map();
  const pending = new Map();

  /** Called by every data file with its own key. */
  function put(key, value) {
    shelf.set(key, value);
  }

  /** Promise of the data file `data/<key>.js`, loaded once. */
  function load(key) {
    if (shelf.has(key)) return Promise.resolve(shelf.get(key));
    if (!pending.has(key)) {
      pending.set(key, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = "data/" + key + ".js";
        script.onload = () => (shelf.has(key) ? resolve(shelf.get(key)) : reject(new Error(script.src)));
        script.onerror = () => reject(new Error("data/" + key + ".js cannot be read"));
        document.head.append(script);
      }));
    }
    return pending.get(key);
  }

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat(3)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }

  /** An HTML element; strings among the children become text nodes, never markup. */
  function el(tag, attributes, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }

  /** The same for SVG. */
  function svg(tag, attributes, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  }

  function count(n) {
    return n.toLocaleString("en");
  }

  /** "1 picture", "2 pictures". */
  function many(n, word) {
    return count(n) + " " + word + (n === 1 ? "" : "s");
  }

  /** A share or an IoU with two decimals; an en dash where there is no value. */
  function ratio(x, digits = 2) {
    return x === null || x === undefined ? "–" : x.toFixed(digits);
  }

  /** A small or large number with few significant figures. */
  function figure(x, digits = 3) {
    if (x === null || x === undefined) return "–";
    if (x !== 0 && Math.abs(x) < 0.001) return x.toExponential(1).replace("e-", " × 10⁻").replace(/⁻(\d+)$/, (_, d) => "⁻" + superscript(d));
    return String(Number(x.toPrecision(digits)));
  }

  function superscript(digits) {
    return [...digits].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("");
  }

  /** "3.4 %". */
  function percent(x) {
    return x === null || x === undefined ? "–" : figure(100 * x, 2) + "\u00a0%";
  }

  /** What a site listens to: its block, with the stream and the signal where they are not the usual ones. */
  function port({ block, stream, signal }) {
    return [block, ...(stream === "image" ? [] : [stream]), ...(signal === "update" ? [] : [signal])].join("-");
  }

  /** down_blocks.2.attentions.1 -> "down 2.1": short enough for a chip, full path in the tooltip. */
  function shortBlock(block) {
    const match = /^(down|up)_blocks\.(\d+)\.attentions\.(\d+)(?=[.-]|$)(.*)/.exec(block);
    if (match) return match[1] + " " + match[2] + "." + match[3] + match[4];
    return block.replace(/^mid_block\.attentions\.0(?=-|$)/, "mid");
  }

  /** The values after "#", as a map. */
  function address() {
    return new URLSearchParams(location.hash.slice(1));
  }

  function featureLink(site, feature, concept) {
    const query = new URLSearchParams({ site: site.slug, f: feature });
    if (concept) query.set("label", concept);
    return "feature.html#" + query;
  }

  function conceptLink(concept) {
    return "concept.html#" + new URLSearchParams({ c: concept });
  }

  /** Zip one packed row with its column names. */
  function record(columns, row) {
    return Object.fromEntries(columns.map((name, i) => [name, row[i]]));
  }

  /** Show a problem where the reader looks, in a sentence. */
  function complain(place, message) {
    place.replaceChildren(el("p", { class: "notice", role: "alert" }, message));
  }

  /** Links to the pages that not every atlas has. */
  async function nav() {
    const { extras } = await load("atlas");
    const series = document.querySelector(".series");
    if (extras.layouts) series.append(el("a", { href: "layout.html" }, "Layouts"));
    if (extras.edits) series.append(el("a", { href: "steering.html" }, "Steering"));
  }
  document.addEventListener("DOMContentLoaded", () => nav().catch(() => {}));

  return {
    put, load, el, svg, count, many, ratio, figure, percent, port, shortBlock,
    address, featureLink, conceptLink, record, complain,
  };
})();

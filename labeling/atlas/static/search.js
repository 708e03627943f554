// Finding features: one pass over packed columns, so a hundred thousand features take milliseconds.
"use strict";

Atlas.search = (() => {
  const Q_STEPS = [1, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001];
  let notes = {};

  /** What a person kept, by "site/feature": a served page knows it, a page from disk does not. */
  function know(found) {
    notes = found;
  }

  /** Site number and first label row of every feature, once. */
  function prepare(atlas, columns) {
    const n = columns.f.length;
    const site = new Uint16Array(n), first = new Uint32Array(n + 1);
    let at = 0;
    atlas.sites.forEach((s, i) => { site.fill(i, at, at + s.n); at += s.n; });
    for (let i = 0; i < n; i++) first[i + 1] = first[i] + columns.labels[i];
    return { ...columns, site, first, n };
  }

  /** Whether some word of the name starts with the query, or with its singular. */
  function matches(name, query) {
    const text = " " + name.toLowerCase(), asked = query.trim().toLowerCase();
    return [asked, ...singulars(asked)].some((one) => text.includes(" " + one));
  }

  /** "dogs" is asked for "dog", "boxes" for "box", "berries" for "berry". */
  function singulars(query) {
    if (query.length < 4 || !query.endsWith("s") || query.endsWith("ss")) return [];
    const found = [query.slice(0, -1)];
    if (query.endsWith("es")) found.push(query.slice(0, -2));
    if (query.endsWith("ies")) found.push(query.slice(0, -3) + "y");
    return found;
  }

  function concepts(names, query) {
    return names.map((name) => matches(name, query));
  }

  function sites(atlas, state) {
    return atlas.sites.map((s) =>
      (!state.block || s.port === state.block) && (!state.t || s.t.toFixed(2) === state.t) &&
      (!state.branch || s.branch === state.branch));
  }

  /** The row of the first label of feature `i` that passes, or -1. */
  function passing(index, i, wanted, state) {
    for (let row = index.first[i]; row < index.first[i + 1]; row++) {
      if (wanted && !wanted(index.concept[row])) continue;
      if (state.held > 0 && !(index.held[row] !== null && index.held[row] >= 1000 * state.held)) continue;
      if (state.qmax < 1 && !(index.q[row] !== null && index.q[row] <= state.qmax)) continue;
      return row;
    }
    return -1;
  }

  /** What the words of a query ask for: names, sites, a number; a query that is a name as a whole is one word. */
  function terms(atlas, query) {
    const asked = query.trim().toLowerCase().replace(/\bno\.?\s*(?=\d)/g, "#");
    if (!asked) return [];
    const whole = term(atlas, asked);
    const words = asked.split(/\s+/);
    return words.length === 1 || whole.names.includes(true) || whole.sites.includes(true) ? [whole] : words.map((word) => term(atlas, word));
  }

  function term(atlas, word) {
    const number = /^#?\d+$/.test(word) ? Number(word.replace("#", "")) : null;
    return { names: concepts(atlas.concepts, word), sites: atlas.sites.map((site) => number === null && lies(site, word)), number };
  }

  /** Whether a block is meant: by its short name ("up 1.0"), its path, or a part of that ("mid", "attentions.0"). */
  function lies(site, word) {
    const short = Atlas.shortBlock(site.port).toLowerCase();
    return word.length > 1 && (short === word || short.startsWith(word + " ") || site.port.toLowerCase().startsWith(word) || site.port.toLowerCase().split(/[._]/).includes(word));
  }

  /** Features that match, as parallel arrays: feature index and the label row that made it match (-1: none). */
  function find(atlas, index, state) {
    const asked = terms(atlas, state.q);
    const open = sites(atlas, state);
    const strict = state.named === "named" || state.held > 0 || state.qmax < 1;
    const kept = { starred: (note) => note.star, noted: (note) => note.text !== "" }[state.named];
    const hits = [];
    for (let i = 0; i < index.n; i++) {
      const note = kept && notes[atlas.sites[index.site[i]].slug + "/" + index.f[i]];
      if (kept && !(note && kept(note))) continue;
      if (!open[index.site[i]] || (state.named === "unnamed" && index.labels[i])) continue;
      const left = asked.filter((one) => !one.sites[index.site[i]] && one.number !== index.f[i]);
      const wanted = left.length ? (concept) => left.every((one) => one.names[concept]) : null;
      const row = passing(index, i, wanted, state);
      if (row < 0 && (strict || wanted)) continue;
      hits.push([i, row]);
    }
    return hits.sort(order(index, state.sort));
  }

  /** Named before unnamed (where the order is by name's quality), best first, then by place. */
  function order(index, key) {
    const excess = (row) => (row < 0 ? -1e9 : index.iou[row] - (index.chance[row] || 0));
    const held = (row) => (row < 0 ? -1e9 : index.held[row] === null ? -1e8 : index.held[row]);
    const by = {
      excess: (a, b) => excess(b[1]) - excess(a[1]),
      held: (a, b) => held(b[1]) - held(a[1]),
      density: (a, b) => index.density[b[0]] - index.density[a[0]],
      place: () => 0,
    }[key];
    return (a, b) => by(a, b) || a[0] - b[0];
  }

  return { prepare, find, know, matches, Q_STEPS };
})();

// The edits on the easel: what, where, how strongly and when; every change can be undone.
"use strict";

class Edits extends EventTarget {
  constructor(world) {
    super();
    this.world = world;
    [this.height, this.width] = world.mask;
    this.list = [];
    this.at = -1;
    this.past = [];
  }

  get current() {
    return this.list[this.at] || null;
  }

  /** Remember how things stand, before a change. */
  remember() {
    this.past.push({ at: this.at, list: this.list.map((edit) => ({ ...edit, mask: edit.mask.slice() })) });
    if (this.past.length > 200) this.past.shift();
  }

  changed(redraw = true) {
    this.dispatchEvent(new CustomEvent("change", { detail: { redraw } }));
  }

  undo() {
    const before = this.past.pop();
    if (!before) return;
    Object.assign(this, before);
    this.changed();
  }

  /** Begin an edit of `what`: {concept}, {word} or {block, stream, signal, branch, t, feature, name}. */
  add(what) {
    this.remember();
    const { strength, window, branch, outside, choice } = this.world.usual;
    const everywhere = this.placeless({ what });
    this.list.push({ what, mask: Mask.blank(this.height, this.width), everywhere, strength, window, branch, outside, choice, on: true });
    this.at = this.list.length - 1;
    this.changed(everywhere);
  }

  /** Whether an edit has no place in the picture: a feature of the text stream changes words. */
  placeless(edit) {
    return edit.what.stream === "text";
  }

  choose(at) {
    this.at = at;
    this.changed(false);
  }

  remove(at) {
    this.remember();
    const [gone] = this.list.splice(at, 1);
    this.at = Math.min(this.list.length - 1, this.at >= at && this.at > 0 ? this.at - 1 : this.at);
    this.changed(this.painted(gone));
  }

  set(values, at = this.at) {
    if (!this.list[at]) return;
    this.remember();
    Object.assign(this.list[at], values);
    this.changed(this.painted(this.list[at]));
  }

  painted(edit) {
    return edit.everywhere || !Mask.empty(edit.mask);
  }

  name(edit) {
    return edit.what.concept || edit.what.word || edit.what.name || "unnamed";
  }

  /** A colour of the edit: the thing's own, or one by its place in the list. */
  ink(edit) {
    const own = this.world.colours[edit.what.concept || edit.what.name];
    return own || [[214, 94, 60], [92, 100, 208], [36, 150, 130], [176, 64, 140]][this.list.indexOf(edit) % 4];
  }

  /** As the file that `gazetteer steer draw` reads, of what is painted and switched on. */
  plain() {
    return this.list.filter((edit) => edit.on && this.painted(edit)).map((edit) => {
      const { what, strength, window, branch, outside, choice } = edit;
      const subject = what.concept ? { concept: what.concept, choice } : what.word ? { word: what.word, choice }
        : { targets: [{ block: what.block, stream: what.stream, signal: what.signal, branch: what.branch, t: what.t, features: [what.feature] }] };
      const region = edit.everywhere ? "everywhere"
        : { mask: { size: [this.height, this.width], counts: Mask.counts(edit.mask, this.height, this.width) } };
      return { ...subject, region, outside, strength, window, branch };
    });
  }
}

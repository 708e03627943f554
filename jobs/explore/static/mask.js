// Painted masks: bytes of 0 and 1, row by row, and COCO's compressed run lengths of them.
"use strict";

const Mask = (() => {
  function blank(height, width) {
    return new Uint8Array(height * width);
  }

  function empty(mask) {
    return !mask.includes(1);
  }

  function share(mask) {
    return mask.reduce((sum, one) => sum + one, 0) / mask.length;
  }

  /** Set every cell whose centre lies within `radius` cells of the line from (x0, y0) to (x1, y1). */
  function stroke(mask, height, width, x0, y0, x1, y1, radius, value) {
    const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
    for (let row = Math.max(0, Math.floor(Math.min(y0, y1) - radius)); row < Math.min(height, Math.max(y0, y1) + radius); row++) {
      for (let column = Math.max(0, Math.floor(Math.min(x0, x1) - radius)); column < Math.min(width, Math.max(x0, x1) + radius); column++) {
        const px = column + 0.5 - x0, py = row + 0.5 - y0;
        const along = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
        if (Math.hypot(px - along * dx, py - along * dy) <= radius) mask[row * width + column] = value;
      }
    }
  }

  /** Run lengths, column by column, background first. */
  function runs(mask, height, width) {
    const found = [];
    let on = 0, length = 0;
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        if (mask[y * width + x] === on) length++;
        else { found.push(length); on = 1 - on; length = 1; }
      }
    }
    return [...found, length];
  }

  /** The text that pycocotools reads: each length less the one before the last, in groups of five bits. */
  function counts(mask, height, width) {
    let text = "";
    const lengths = runs(mask, height, width);
    lengths.forEach((length, i) => {
      let value = i > 2 ? length - lengths[i - 2] : length, more = true;
      while (more) {
        let bits = value & 31;
        value >>= 5;
        more = bits & 16 ? value !== -1 : value !== 0;
        text += String.fromCharCode((more ? bits | 32 : bits) + 48);
      }
    });
    return text;
  }

  return { blank, empty, share, stroke, counts };
})();

// The canvas over the picture: strokes of the brush go into the mask of the edit that is chosen.
"use strict";

function easel(edits, mode, size, look) {
  const canvas = document.getElementById("paint");
  const context = canvas.getContext("2d");
  const cursor = { x: 0.5, y: 0.5, shown: false };
  let last = null;

  function show() {
    const side = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    const tall = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
    if (canvas.width !== side || canvas.height !== tall) Object.assign(canvas, { width: side, height: tall });
    context.clearRect(0, 0, side, tall);
    for (const edit of [...edits.list.filter((e) => e !== edits.current), edits.current].filter(Boolean)) {
      if (edit.on) fill(edit, side, tall);
    }
    if (cursor.shown && mode() !== "look") ring(side, tall);
  }

  function fill(edit, side, tall) {
    const small = new OffscreenCanvas(edits.width, edits.height);
    const pixels = new ImageData(edits.width, edits.height);
    const ink = edits.ink(edit), alpha = edit === edits.current ? 165 : 90;
    edit.mask.forEach((inside, i) => { if (inside || edit.everywhere) pixels.data.set([...ink, edit.everywhere ? 60 : alpha], 4 * i); });
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, side, tall);
  }

  function ring(side, tall) {
    context.beginPath();
    context.ellipse(cursor.x * side, cursor.y * tall, size() * side / edits.width, size() * tall / edits.height, 0, 0, 2 * Math.PI);
    context.lineWidth = 3; context.strokeStyle = "#000a"; context.stroke();
    context.lineWidth = 1.5; context.strokeStyle = "#fff"; context.stroke();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  function stroke(from, to) {
    const edit = edits.current;
    edit.everywhere = false;
    Mask.stroke(edit.mask, edits.height, edits.width, from.x * edits.width, from.y * edits.height,
      to.x * edits.width, to.y * edits.height, size(), mode() === "erase" ? 0 : 1);
    show();
  }

  function begin(at) {
    if (mode() === "look" || !edits.current) return look(at);
    if (edits.placeless(edits.current)) return;
    edits.remember();
    last = at;
    stroke(at, at);
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    begin(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    Object.assign(cursor, at, { shown: event.pointerType !== "touch" });
    if (last) { stroke(last, at); last = at; } else show();
  });
  const end = () => { if (last) { last = null; edits.changed(); } };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => { cursor.shown = false; show(); });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) {
      cursor.x = Math.max(0, Math.min(1, cursor.x + move[0] / 32));
      cursor.y = Math.max(0, Math.min(1, cursor.y + move[1] / 32));
      cursor.shown = true;
      show();
    } else if (event.key === " ") {
      begin({ ...cursor });
      end();
    } else return;
    event.preventDefault();
  });
  edits.addEventListener("change", show);
  new ResizeObserver(show).observe(canvas);
  return { show };
}

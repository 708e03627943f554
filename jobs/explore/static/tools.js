// The tools beside the picture: the list of edits, and the settings of the one that is chosen.
"use strict";

function tools(edits, world) {
  const { el } = Atlas;
  const $ = (id) => document.getElementById(id);
  const stages = Object.entries(world.stages);
  let mode = "paint", size = 7;

  function pressed(box, test) {
    for (const button of box.children) {
      button.setAttribute(button.getAttribute("role") === "radio" ? "aria-checked" : "aria-pressed", test(button));
    }
  }

  function setMode(next) {
    mode = next;
    pressed($("mode"), (button) => button.dataset.mode === mode);
    $("paint").dataset.mode = mode;
  }

  function setSize(next) {
    size = Math.max(1, Math.min(24, next));
    $("size").value = size;
    $("size-said").textContent = size;
  }

  /** The window of an edit with this stage switched; stages between those chosen belong to it. */
  function switched(window, [low, high]) {
    const inside = window[0] <= low && high <= window[1];
    if (!inside) return [Math.min(window[0], low), Math.max(window[1], high)];
    if (window[0] === low && window[1] === high) return window;
    return window[0] === low ? [high, window[1]] : window[1] === high ? [window[0], low] : [low, high];
  }

  function layer(edit, at) {
    const share = edits.placeless(edit) ? "in the words of the prompt" : edit.everywhere ? "everywhere" : edits.painted(edit) ? `${Math.max(1, Math.round(100 * Mask.share(edit.mask)))} % of the picture` : "paint where it should be";
    const mark = el("i", { class: "ink" });
    mark.style.background = `rgb(${edits.ink(edit).join(" ")})`;
    const place = edit.what.concept ? "concept" : edit.what.word ? "look" : `${Atlas.shortBlock(Atlas.port(edit.what))} · ${edit.what.branch} · t ${edit.what.t.toFixed(2)} · no. ${edit.what.feature}`;
    return el("li", { class: "layer" + (at === edits.at ? " chosen" : "") + (edit.on ? "" : " off") },
      el("button", { type: "button", class: "pick", "aria-pressed": String(at === edits.at), onclick: () => edits.choose(at) },
        mark, el("b", {}, edits.name(edit)), el("span", { class: "small" }, ` ${place}`), el("span", { class: "small share" }, share)),
      el("button", { type: "button", class: "mini", "aria-pressed": String(edit.on), title: edit.on ? "Leave it out" : "Use it again",
        onclick: () => edits.set({ on: !edit.on }, at) }, edit.on ? "on" : "off"),
      el("button", { type: "button", class: "mini", title: "Remove", "aria-label": `Remove ${edits.name(edit)}`, onclick: () => edits.remove(at) }, "×"));
  }

  function show() {
    const edit = edits.current;
    $("layers").replaceChildren(...edits.list.map(layer));
    $("settings").hidden = !edit;
    const placeless = Boolean(edit) && edits.placeless(edit);
    for (const id of ["brush", "elsewhere", "everywhere"]) $(id).hidden = placeless;
    $("placeless").hidden = !placeless;
    $("paint").classList.toggle("placeless", placeless);
    $("undo").disabled = !edits.past.length;
    if (!edit) return;
    $("strength").value = edit.strength;
    $("strength-said").textContent = edit.strength.toFixed(2);
    pressed($("stage"), (b) => { const [low, high] = world.stages[b.dataset.stage]; return edit.window[0] <= low && high <= edit.window[1]; });
    pressed($("branch"), (b) => b.dataset.branch === edit.branch);
    pressed($("outside"), (b) => b.dataset.outside === edit.outside);
    for (const button of $("outside").children) button.disabled = button.dataset.outside === "remove" && edit.strength < 0;
    $("everywhere").setAttribute("aria-pressed", edit.everywhere);
  }

  $("stage").replaceChildren(...stages.map(([name, [low, high]]) => el("button", {
    type: "button", "data-stage": name, "aria-pressed": "false", title: `t ${high} to ${low}`,
    onclick: () => edits.set({ window: switched(edits.current.window, [low, high]) }),
  }, name)));
  $("branch").replaceChildren(...(world.guided ? ["cond", "uncond", "both"] : ["cond"]).map((name) => el("button", {
    type: "button", role: "radio", "data-branch": name, "aria-checked": "false", onclick: () => edits.set({ branch: name }),
  }, name)));
  const outsides = { keep: "Leave the rest as it is", remove: "Take the same features away there", subtract: "Take away half of what is added inside" };
  $("outside").replaceChildren(...Object.entries(outsides).map(([name, title]) => el("button", {
    type: "button", role: "radio", "data-outside": name, "aria-checked": "false", title, onclick: () => edits.set({ outside: name }),
  }, name)));
  $("mode").addEventListener("click", (event) => { if (event.target.dataset.mode) setMode(event.target.dataset.mode); });
  $("size").addEventListener("input", () => setSize(Number($("size").value)));
  $("strength").addEventListener("input", () => { $("strength-said").textContent = Number($("strength").value).toFixed(2); });
  $("strength").addEventListener("change", () => {
    const strength = Number($("strength").value);
    const { outside } = edits.current;  // taking away inside and everywhere else at once is refused
    edits.set({ strength, outside: strength < 0 && outside === "remove" ? "keep" : outside });
  });
  $("everywhere").addEventListener("click", () => edits.set({ everywhere: !edits.current.everywhere }));
  $("undo").addEventListener("click", () => edits.undo());
  edits.addEventListener("change", show);
  setMode("paint");
  setSize(Math.round(world.mask[1] / 9));
  show();
  return { mode: () => mode, size: () => size, setMode, grow: (by) => setSize(size + by) };
}

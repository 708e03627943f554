// The studio: a prompt becomes a picture, paint becomes edits, edits become the picture beside it.
"use strict";

(async () => {
  const $ = (id) => document.getElementById(id);
  const status = $("status");
  const FOLLOWS = " Its layout follows, once layouts are fitted to the run.";
  const NO_SEED = "The seed is a whole number from 0 to 2⁶³ − 1.";
  let picture = null, drawing = false, editing = false, stale = false, chosen = null, turn = 0;

  function say(text, wrong = false) {
    status.textContent = text;
    status.className = wrong ? "wrong" : "";
    status.setAttribute("role", wrong ? "alert" : "status");
  }

  if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);
  let world;
  try {
    world = await Asking.get("api/world");
  } catch (error) {
    say(error.message, true);
    return;
  }
  const edits = new Edits(world);
  const ends = tools(edits, world);
  const layout = appearing();
  const here = places((what) => edits.add(what) || ends.setMode("paint"), () => picture && { prompt: picture.prompt, seed: picture.seed });
  easel(edits, ends.mode, ends.size, (at) => here.look(at).catch((error) => say(error.message, true)));

  function ratio(height, width) {
    for (const id of ["original", "edited", "predicted", "final"]) $(id).style.aspectRatio = width + " / " + height;
  }

  async function draw() {
    const seed = Asking.whole($("seed").value);
    if (seed === null) return say(NO_SEED, true);
    if (drawing) return undefined;
    const asked = { prompt: $("prompt").value, seed };
    drawing = true;
    turn++;
    let follows = false;
    $("draw").disabled = true;
    here.hide();
    layout.begin();
    say("Drawing…");
    try {
      await Asking.lines("api/draw", asked, (event) => {
        if (event.kind === "step") {
          say(`Drawing: step ${event.step + 1} of ${event.steps}`);
          layout.add(event);
          return;
        }
        follows = event.layout_follows;
        picture = { ...asked, source: "data:image/png;base64," + event.png };
        shown(event);
      });
    } catch (error) {
      say(error.message, true);
    } finally {
      drawing = false;
      $("draw").disabled = false;
    }
    if (follows) follow(asked, turn);
    return redraw();
  }

  /** The layout of a picture that was drawn before layouts could be predicted, unless another one is asked for meanwhile. */
  async function follow(asked, mine) {
    try {
      const { problem } = await Asking.get("api/layout");
      if (mine !== turn) return;
      if (!problem) {
        layout.begin();
        await Asking.lines("api/draw", asked, (event) => {
          if (mine !== turn) return;
          if (event.kind === "step") layout.add(event);
          else layout.finish(picture.source, $("plain").alt);
        });
      }
      if (mine === turn && status.textContent.includes(FOLLOWS)) say(status.textContent.replace(FOLLOWS, problem ? ` No layout: ${problem}` : ""));
    } catch (error) {
      say(error.message, true);
    }
  }

  function shown(event) {
    ratio(event.height, event.width);
    $("plain").src = picture.source;
    $("plain").alt = "Picture for the prompt: " + picture.prompt;
    $("plain").hidden = false;
    $("blank").hidden = true;
    unedited();
    layout.finish(picture.source, $("plain").alt);
    const cut = event.tokens_cut ? ` The text encoder does not read the last ${event.tokens_cut} tokens of the prompt.` : "";
    const lacking = event.layout_problem ? ` No layout: ${event.layout_problem}` : "";
    say(`Drawn in ${event.seconds.toFixed(1)} s.${cut}${event.layout_follows ? FOLLOWS : lacking}`);
    history.replaceState(null, "", "#" + new URLSearchParams({ prompt: picture.prompt, seed: picture.seed }));
  }

  /** Nothing edited is shown, nor offered to be taken along. */
  function unedited() {
    for (const id of ["after", "download", "take"]) $(id).hidden = true;
    $("edited-said").textContent = "With your edits";
  }

  async function redraw() {
    if (!picture) return;
    if (editing) { stale = true; return; }
    const plain = edits.plain(), of = picture;
    if (!plain.length) return unedited();
    editing = true;
    $("edited").classList.add("waiting");
    try {
      const made = await Asking.post("api/edit", { prompt: of.prompt, seed: of.seed, edits: plain });
      if (of === picture) after(made);
    } catch (error) {
      unedited();
      say(error.message, true);
    } finally {
      editing = false;
      $("edited").classList.remove("waiting");
    }
    if (stale) { stale = false; redraw(); }
  }

  function after(made) {
    const source = "data:image/png;base64," + made.png;
    $("after").src = source;
    $("after").alt = "The picture with your edits";
    $("after").hidden = false;
    $("download").href = source;
    $("download").download = "edited.png";
    $("download").hidden = false;
    const from = made.step ? `from step ${made.step + 1} of ${made.steps}` : "from the noise";
    $("edited-said").textContent = `${(100 * made.change).toFixed(1)} % of full scale changed; redrawn ${from} in ${made.seconds.toFixed(1)} s`;
    say(made.said.join(" ") || "Redrawn.", made.said.length > 0);
    for (const name of ["yaml", "command", "python"]) $(name).textContent = made[name];
    $("take").hidden = false;
  }

  function copy(event) {
    const button = event.target.closest(".copy");
    if (!button) return;
    navigator.clipboard.writeText($(button.dataset.copies).textContent).then(() => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    }, () => say("The browser did not let the text be copied; select it instead.", true));
  }

  function keys(event) {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      return edits.undo();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return undefined;
    const mode = { p: "paint", e: "erase", l: "look" }[event.key];
    if (mode) ends.setMode(mode);
    else if (event.key === "[" || event.key === "]") ends.grow(event.key === "]" ? 1 : -1);
    else if (event.key === "/") { event.preventDefault(); $("what").focus(); }
    return undefined;
  }

  const query = Atlas.address();
  const first = world.prompts[0] || { prompt: "", seed: "0" };
  $("prompts").append(...[...new Set(world.prompts.map((one) => one.prompt))].map((value) => Atlas.el("option", { value })));
  $("prompt").value = query.get("prompt") || first.prompt;
  $("seed").value = query.get("seed") || "0";
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  $("another").addEventListener("click", () => {
    const seed = Asking.whole($("seed").value || "0");
    if (seed === null) return say(NO_SEED, true);
    $("seed").value = String(BigInt(seed) + 1n);
    return draw();
  });
  $("take").addEventListener("click", copy);
  document.addEventListener("keydown", keys);
  edits.addEventListener("change", (event) => { if (event.detail.redraw) redraw(); });
  const drawn = draw();
  try {
    chosen = await chooser(edits, world, () => ends.setMode("paint"));
  } catch (error) {
    return say(error.message, true);
  }
  if (query.has("block")) {
    chosen.take({ block: query.get("block"), stream: query.get("stream") || "image", signal: query.get("signal") || "update", branch: query.get("branch"), t: Number(query.get("t")), feature: Number(query.get("f")), name: query.get("name") || null });
  }
  return drawn;
})();

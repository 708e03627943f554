// A label's evidence: one sentence a person would say, and a ledger of numbers with their meaning.
"use strict";

Atlas.evidence = (() => {
  const { el, ratio, figure, percent, many, count } = Atlas;

  /** What the kinds that say nothing of where a concept is mean. */
  const WHOLE = {
    scene: (c) => `It goes with pictures that show ${c}, and does not know where in them.`,
    style: (c) => `It tells pictures with the look ${c} from others, wherever it fires in them.`,
    place: (c) => `It fires at a place in the frame, ${c}, whatever is shown there.`,
  };

  function sentence(label) {
    const c = `“${label.concept}”`, all = WHOLE[label.kind];
    const rival = label.runner_up === null ? "" : ` Next comes “${label.runner_up}” (${label.runner_up_kind}).`;
    const explains = `The name accounts for ${percent(label.explained)} of where and how strongly it fires, ${percent(label.heldout_explained)} on held-out pictures.${rival}`;
    if (all) return `${all(c)} ${explains}`;
    const where = label.kind === "part" ? "It covers little of it, but hardly anything else: a part. " : "";
    return `${where}${overlap(label)} ${explains}`;
  }

  function overlap(label) {
    const said = [`Where this feature fires and where “${label.concept}” is overlap by ${ratio(label.dataset_iou)}.`];
    if (label.null_iou !== null) {
      said.push(label.null_iou > 0.005
        ? `With the pictures shuffled, which keeps the usual place of things in the frame, ${ratio(label.null_iou)} would remain: the two share ${figure(label.lift)} times the area that chance explains.`
        : "With the pictures shuffled almost nothing of it would remain.");
    }
    said.push(label.heldout_dataset_iou === null || !label.heldout_images
      ? "No held-out picture holds both, so the name is untested there."
      : `On held-out pictures, that took no part in choosing the name, it is ${ratio(label.heldout_dataset_iou)} (${many(label.heldout_images, "picture")} of both).`);
    if (label.top_share < 1) {
      said.push(`Its strongest ${percent(label.top_share)} of cells alone reach ${ratio(label.top_iou)}, held out ${ratio(label.heldout_top_iou)}.`);
    }
    return said.join(" ");
  }

  function line(name, value, meaning) {
    return el("div", { class: "line" }, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "meaning" }, meaning));
  }

  /** Every number of a label, with what it means. */
  function ledger(label) {
    const c = `“${label.concept}”`;
    const where = ["thing", "stuff", "part"].includes(label.kind);
    const common = [
      line("Kind", label.kind, "Whether the name stands for a thing, for what fills a region, for a part of it, for the pictures that show it, for a look, or for a place in the frame."),
      line("Explains", percent(label.explained), `The share of the activation’s variance over all cells of all pictures that ${c} accounts for; held out ${percent(label.heldout_explained)}.`),
      line("Ahead by", percent(label.specificity), label.runner_up === null ? "Nothing else explains any of it." : `How much less the next best name, “${label.runner_up}” (${label.runner_up_kind}), explains.`),
      line("Inside", percent(label.mass_precision), `The share of its activation that lies where ${c} says.`),
      line("q-value", figure(label.q_value), "The share of names of this site to expect false among those at least as convincing."),
    ];
    if (!where) {
      return el("dl", { class: "ledger" }, common,
        line("AUC", label.auc === null ? "–" : `${ratio(label.auc)} (${ratio(label.auc_low)} to ${ratio(label.auc_high)})`, `For a look: the chance that a picture with ${c} makes it fire more than one without.`),
        line("Lift", label.lift === null ? "–" : "× " + figure(label.lift), "How much more often than by chance. 1 is chance."),
        line("Pictures", `${count(label.images_both)} of both`, `It fires in ${many(label.images_feature, "picture")}; ${count(label.images_concept)} have ${c}.`));
    }
    return el("dl", { class: "ledger" }, common,
      line("Knows where", label.where_lift === null ? "–" : "× " + figure(label.where_lift), `Among pictures with both: how much more of its support lies on ${c} than if these pictures were shuffled (q ${figure(label.where_q_value)}).`),
      line("Overlap (IoU)", ratio(label.dataset_iou, 3), `Of all pixels that the feature or ${c} covers, the share that both cover. 1 is a perfect match.`),
      line("By chance", ratio(label.null_iou, 3), "The same with pictures shuffled: what the usual place of things in the frame explains."),
      line("Lift", label.lift === null ? "–" : "× " + figure(label.lift), "The area that both cover, divided by what they would share if the pictures were shuffled. 1 is chance."),
      line("Held-out overlap", ratio(label.heldout_dataset_iou, 3), "The overlap on pictures that took no part in choosing the name. A name that holds keeps most of its overlap."),
      line("Where strongest", ratio(label.top_iou, 3), `The overlap when only the strongest ${percent(label.top_share)} of the cells where it fires count, the share that suits the name best; held out ${ratio(label.heldout_top_iou, 3)}.`),
      line("Precision", percent(label.precision), `How much of the area where the feature fires is ${c}.`),
      line("Recall", percent(label.recall), `How much of the area of ${c} the feature covers.`),
      line("Pictures", `${count(label.images_both)} of both`, `Where ${c} was looked for, the feature fires in ${many(label.images_feature, "picture")}; ${c} was found in ${count(label.images_concept)}; these hold both.`),
      line("Hits", `${count(label.hits)} (${percent(label.hit_rate)})`, "Pictures in which the feature’s map, stretched to its own range, matches one outline by more than half."),
      line("Mean IoU", ratio(label.mean_iou, 3), `The same per-picture match, averaged; held out ${ratio(label.heldout_mean_iou, 3)}, with ${percent(label.heldout_hit_rate)} hits.`),
      line("Paper’s rule", label.paper_label ? "named" : "not named", "Whether a single hit anywhere, the published rule, would give this name."));
  }

  /** How much the feature fires, whatever it is called. */
  function activity(feature) {
    const short = feature.short > 0 ? ` ${count(feature.wanted)} were wanted, so it is ${count(feature.short)} short.` : "";
    return el("dl", { class: "ledger activity" },
      line("Fires in", percent(feature.density), "The share of all cells of all pictures in which it is active."),
      line("Pictures", count(feature.images), "The pictures in which it is active at all." + short),
      line("Mean strength", figure(feature.mean), "Its average activation where it is active."),
      line("Peak", figure(feature.max), "Its strongest activation anywhere."));
  }

  /** What to say of a feature that has no trusted label. */
  function unnamed(feature) {
    if (feature.dead) return [el("p", { class: "lede" }, "This feature never fired in this run’s pictures, so nothing can be said about it.")];
    const said = [el("p", { class: "lede" },
      "No name is given: nothing that was looked for overlaps with where this feature fires often enough, closely enough and clearly more than the usual place of things in the frame explains. It may stand for something that has no word here, such as a texture, an edge or a stage of drawing.")];
    if (feature.near.length) {
      said.push(el("p", { class: "note" }, "Closest, but not trusted: ", feature.near.map((label, i) => [
        i ? "; " : "", el("a", { href: Atlas.conceptLink(label.concept) }, label.concept),
        ` (overlap ${ratio(label.dataset_iou)}, chance ${ratio(label.null_iou)}, ${label.q_value === null ? "too rare to test" : "q " + figure(label.q_value)})`]), "."));
    }
    return said;
  }

  return { sentence, ledger, activity, unnamed };
})();

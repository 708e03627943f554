"""What `benchmarks.measure` found, as Markdown tables that the results pages can take over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gazetteer.jobs.experiments.attribute_table import evaluation_table, interval, markdown, number

STEERING = ("steering", "steering_mid", "steering_both", "steering_windows")
WEIGHTS = ("attribution", "looks", "attacks", "faithfulness")


def tables(results: Mapping[str, Any]) -> str:
    """The page; pieces that were not measured are named.

    Args:
        results: by piece ``command``, ``cpu_seconds`` and ``result``, or None.
    """
    parts = ["# Measured"]
    missing = [name for name, outcome in results.items() if outcome is None]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    makers = {"quality": _quality, "layout": _layout, "causal": _causal, "examine": _examiners, "nulls": _nulls,
              "placing": _placing}  # fmt: skip
    for name, outcome in results.items():
        if outcome is None or name in ("label", "exact", *WEIGHTS, *STEERING[1:]):
            continue
        results_of = {s: results[s] for s in STEERING if results.get(s)} if name == "steering" else outcome["result"]
        body = _steering(results_of) if name == "steering" else makers[name](results_of)
        commands = [each["command"] for each in results_of.values()] if name == "steering" else [outcome["command"]]
        said = "\n".join(commands)
        parts += [f"## {name.capitalize()}", f"```sh\n{said}\n```", body, f"{outcome['cpu_seconds']:.0f} CPU-seconds."]
    if weights := [results[name] for name in WEIGHTS if results.get(name)]:
        whole: dict[str, Any] = {}
        for outcome in weights:  # the first says what was erased; each of the others adds what it measured
            whole |= {key: value for key, value in outcome["result"].items() if value or key not in whole}
        if first := results.get("attribution"):
            whole["erase"] = first["result"].get("erase", {})  # looks and attacks go over fewer methods
        page = evaluation_table(whole).replace("\n## ", "\n### ").replace("# Evaluation", "## Evaluation", 1)
        said = "\n".join(outcome["command"] for outcome in weights)
        spent = sum(outcome["cpu_seconds"] for outcome in weights)
        parts += [page.strip(), f"```sh\n{said}\n```", f"{spent:.0f} CPU-seconds."]
    return "\n\n".join(parts) + "\n"


def _quality(figures: Mapping[str, Any]) -> str:
    rows = [
        [f"`{site['block']}`", site["branch"], f"{site['t']:g}", number(site["mean_heldout_iou"], 3),
         number(site["ceiling"], 3)]
        for site in figures["sites"]
    ]  # fmt: skip
    parts = [markdown(["block", "branch", "t", "held-out IoU of the best feature", "ceiling"], rows)]
    parts.append(
        "Features by the kind of their best label: " + ", ".join(f"{n} {k}" for k, n in figures["kinds"].items())
    )
    if right := figures.get("accuracy"):
        curve = [[str(n), _share(share)] for n, share in right["curve"]]
        rows_of = {kind: row for kind, row in right["by_kind"].items() if _judged(row)}
        each = [[kind, str(_judged(row)), _shares(row["right"])] for kind, row in rows_of.items()]
        parts.append(f"{_shares(right['right'])} of {_judged(right)} spatial labels are right on exact masks.")
        parts += [markdown(["kind", "features", "right"], each), markdown(["most certain", "right"], curve)]
    if shuffled := figures.get("shuffled"):
        rows = [[rule, str(shuffled[rule]), str(shuffled[f"{rule}_shuffled"])] for rule in ("trusted", "q", "paper")]
        parts.append(markdown(["rule", "pairs that pass", "with pictures shuffled"], rows))
    return "\n\n".join(parts)


def _judged(figures: Mapping[str, Any]) -> int:
    """How many labels a share right is of; figures of older commands hold the judged ones as ``labels``."""
    return int(figures.get("judged", figures["labels"]))


def _layout(figures: Mapping[str, Any]) -> str:
    parts = []
    for title, measured in (("held-out pictures", figures["miou"]), ("exact masks", _exact(figures))):
        shown = [t for t in ("1.00", "0.50", "0.00") if t in measured]
        if not shown:
            continue
        methods = list(dict.fromkeys(method for t in shown for method in measured[t]))
        rows = [[f"`{name}`", *(_interval(measured[t].get(name), 3) for t in shown)] for name in methods]
        parts.append(markdown([f"mIoU, {title}", *(f"t = {float(t):g}" for t in shown)], rows))
    listed = [site for site in figures["sites"] if site["t"] in (1.0, 0.5, 0.0)]
    sites = [[f"`{s['block']}`", s["branch"], f"{s['t']:g}", _interval(s["miou"], 3)] for s in listed]
    return "\n\n".join([*parts, markdown(["block", "branch", "t", "mIoU alone"], sites)])


def _exact(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {t: outcome["miou"] for t, outcome in figures.get("exact", {}).items()}


def _steering(figures: Mapping[str, Any]) -> str:
    rows = [
        [name, stage, f"`{method}`", _interval(value), outcome["result"]["spatial_setting"][stage]]
        for name, outcome in figures.items()
        for stage, methods in outcome["result"]["spatial"].items()
        for method, value in methods.items()
    ]
    parts = [markdown(["edit of", "stage", "method", "placed (chance .25)", "setting"], rows)]
    looks = [
        [stage, _interval(value), _interval(outcome["result"]["global_random"][stage])]
        for outcome in figures.values()
        for stage, value in outcome["result"].get("global", {}).items()
    ]
    return "\n\n".join([*parts, *([markdown(["stage", "look rises", "random features"], looks)] if looks else [])])


def _placing(figures: Mapping[str, Any]) -> str:
    rows = [[name, str(figures[name]["placed"]), str(figures["pictures"]), _interval(figures[name]["share"])]
            for name in ("none", "edited")]  # fmt: skip
    return markdown(["", "placed", "pictures", "share"], rows)


def _causal(figures: Mapping[str, Any]) -> str:
    names = ("features", "labels", "confirmed", "contradicted", "no_effect", "undecided", "power", "labels_rising",
             "other_pairs_rising", "effect_without_label", "images_used")  # fmt: skip
    return _pairs({name: figures[name] for name in names})


def _examiners(figures: Mapping[str, Any]) -> str:
    rows = [[name, str(row["labels"]), _interval(row["auroc"], 3), str(row["same_labels"]), _interval(row["same"], 3)]
            for name, row in figures["examiners"].items()]  # fmt: skip
    sites = [[f"`{outcome['site']}`", *(number(outcome[name], 3) for name in ("map", "purity_at_16", "coverage"))]
             for outcome in figures["retrieval"]]  # fmt: skip
    heads = (
        ["examiner", "labels", "AUROC for being right", "labels that all know", "AUROC"],
        ["site", "mAP", "purity@16", "coverage at AP ≥ .3"],
    )
    return "\n\n".join([markdown(heads[0], rows), markdown(heads[1], sites)])


def _nulls(figures: Mapping[str, Any]) -> str:
    names = ("tested", "rejected", "trusted", "p_below_05")
    rows = [[name, *(f"{row[key]:g}" for key in names)] for name, row in figures.items()
            if isinstance(row, dict) and set(names) <= row.keys()]  # fmt: skip
    return markdown(["simulation", *names], rows)


def _pairs(figures: Mapping[str, Any]) -> str:
    return markdown(["", ""], [[name.replace("_", " "), _shown(value)] for name, value in figures.items()])


def _shown(value: Any) -> str:
    return _interval(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)


def _interval(value: Sequence[float | None] | None, digits: int = 2) -> str:
    return "" if value is None else interval(value, digits)


def _shares(value: Sequence[float | None]) -> str:
    ends = "" if None in value[1:] else f" [{_share(value[1])}, {_share(value[2])}]"
    return _share(value[0]) + ends


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"

"""An evaluation of attribution as text, and as files: numbers, curves, matrices and where the weights lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.attribution.edits.method_names import FEATURES
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.core.terminal import print_table
from gazetteer.jobs.experiments.attribute_table import (
    evaluation_table,
    sampled_with,
    shared_prompts,
    steps_of,
    trajectories,
)
from gazetteer.jobs.plots.charts import Point, bars, curves, matrix, save_plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INEFFECTIVE = 0.85
"""What leaves so much of what it is to erase, or amplifies as little, is said to do hardly anything."""
FEWEST = 3
"""A cell of an interference matrix that rests on fewer pictures is not drawn: one picture more or less decides it."""
_GOALS = (
    ("erase", "found edited / intact"),
    ("erase_styles", "styles of the picture, found edited / intact"),
    ("erase_together", "objects and styles as one set, found edited / intact"),
    ("erase_areas", "what covers the picture, found edited / intact"),
    ("amplify", "shown where the intact model missed it"),
    ("amplify_styles", "styles of the picture, shown where the intact model missed them"),
)
_DOSES = (
    ("", False, "fraction of the scope's weights"),
    ("-features", True, "fraction of the features; of sae_negative the multiple"),
)
"""Plots of doses: name, whether of ways to erase through features, what their doses are."""
_SHOWN = ("target", "classifier", "others", "distance")


def print_evaluation(result: Mapping[str, Any]) -> None:
    """The measurements as text."""
    rows: list[Mapping[str, Any]] = list(result["faithfulness_rows"])
    if rows:
        print("faithfulness: Pearson and Spearman of predicted and actual change of J, [low, high] each")
    for estimator, pooled in result.get("faithfulness", {}).items():
        mean = {"pearson": pooled, "spearman": result["faithfulness_spearman"][estimator]}
        whole = {"estimator": estimator, "concept": "all", "unit": _unit(rows, estimator), "fraction": "all"}
        rows.append({**whole, **mean})
    print_table(
        {"estimator": "", "concept": "", "unit": "", "fraction": ">", "Pearson": ">", "Spearman": ">"},
        (
            [*(row.get(name) for name in ("estimator", "concept", "unit", "fraction")),
             _cell(row["pearson"]), _cell(row["spearman"])]
            for row in rows
        ),
    )  # fmt: skip
    print_heldout(result.get("faithfulness_heldout", {}))
    if result.get("features_skipped"):
        print(f"nothing was erased through features: {result['features_skipped']}")
    for said in filter(None, (sampled_with(result), shared_prompts(result))):
        print(said)
    if result.get("nothing"):
        print(f"nothing was measured of {', '.join(result['nothing'])}: no concept of the kind that the model shows")
    for goal, what in _GOALS:
        if not result.get(goal):
            continue
        print(f"\n{goal}: target ({what}), the same by the classifier, others kept, distance of others, KID")
        methods = result[goal]
        print_table(
            {"method": "", **dict.fromkeys((*_SHOWN, "KID", "pictures"), ">"), "remark": ""},
            (row for method, figures in methods.items() for row in _method_rows(method, figures)),
        )
        seen = {m: of["artifacts"] for m, of in methods.items() if of.get("artifacts", {}).get("pictures")}
        if seen:
            print("pictures with artifacts")
        print_table(
            {"method": "", "edited": ">", "intact": ">"},
            ((name, _cell(real["rate"]), _cell(real["intact_rate"])) for name, real in seen.items()),
        )
    if result.get("attacks"):
        print("\nattacks: how often the concept is shown; the same less the intact model's rate with an empty prompt")
        print_attacks(result["attacks"])


def _method_rows(method: str, figures: Mapping[str, Any]) -> Iterator[list[Any]]:
    """One method's rows: its own, less each control, and with prompts that say it otherwise or were searched."""
    quality = figures.get("quality", {"kid": [None], "distinct": 0})
    yield [method, *(_cell(figures[name]) for name in _SHOWN), _cell(quality["kid"], 4), quality["distinct"] or "", ""]
    others = {f"{method} - {control}": less for control, less in figures.get("minus", {}).items()}
    others |= {f"{method} {name}": figures[name] for name in ("paraphrased", "attacked") if name in figures}
    for name, of in others.items():
        why = f"skipped: {of['skipped']}" if of.get("skipped") else _aside(of)
        yield [name, *(_cell(of[shown]) if shown in of else "" for shown in _SHOWN), "", "", why]


def print_heldout(estimators: Mapping[str, Any]) -> None:
    """Faithfulness on the noise of the scores and on other noise, stage by stage."""
    if estimators:
        print("\nfaithfulness on the noise of the scores and on other noise: Pearson over all steps, and in each third")
    stages = ("early", "middle", "late")
    print_table(
        {"estimator": "", "noise": "", "all steps": ">", **dict.fromkeys(stages, ".2f"), "gradients": "d"},
        (
            (estimator, noise, _cell(of[noise]["all"]), *(of[noise][stage][0] for stage in stages), of["gradients"])
            for estimator, of in estimators.items()
            for noise in ("same", "heldout")
        ),
    )


def print_attacks(methods: Mapping[str, Any]) -> None:
    """How often the concepts are shown after each attack."""
    print_table(
        {"method": "", "attack": "", "shown": ">", "above the floor": ">", "pictures": ">", "remark": ""},
        (
            (method, attack, "", "", "", f"skipped: {of['skipped']}")
            if "skipped" in of
            else (method, attack, _cell(of["shown"]), _cell(of["above_floor"]), of["pictures"], _aside(of))
            for method, attacks in methods.items()
            for attack, of in attacks.items()
        ),
    )


def print_edit(result: Mapping[str, Any]) -> None:
    """What `gazetteer attribute edit` made, as text; the last lines are the pictures before and after."""
    fraction, method = result["fraction"], result["method"]
    print(f"{result['goal']} {result['concept']} by {method}: {result['weights']} weights, fraction {fraction:g}")
    if result["short"]:
        print(result["short"])
    print(f"made {_made(result)}; pictures before and after it are painted with {result['configured_steps']} steps")
    for said in edit_remarks(result):
        print(said)
    if result["too_strong"]:
        print(f"no dose of {method} that was evaluated keeps 90 % of the others; this is the gentlest of them")
    if result["said"]:
        print(f"{result['said']}; {result['rounding']}")
    if result["shown"]:
        print(result["shown"])
    print(f"edit: {result['edit']}")
    for name in ("sheet", "before", "after"):
        if result[name]:
            print(f"{name}: {result[name]}")


def _made(result: Mapping[str, Any]) -> str:
    """How an edit was made: not all methods sample, and not all take prompts."""
    if result["method"] == "uce":
        return "in closed form, from names alone"
    prompts, concept = result["named_by"], result["concept"]
    by = f"{prompts} prompts that name {concept}" if prompts else f"{trajectories(result)} of the bare name {concept}"
    return f"with {steps_of(result)}, from {by}"


def edit_remarks(result: Mapping[str, Any]) -> list[str]:
    """What the evaluation found of an edit's method, dose and kind of concept, or why it says nothing of it."""
    method, goal, concept, outcome = result["method"], result["goal"], result["concept"], result["outcome"]
    said = []
    if result["named_by"] == 0:
        said.append(f"no prompt of the configuration names {concept} beside something else: made from its bare name")
    if outcome:
        share, kept = f"{outcome['target']:.2f}", f"{outcome['others']:.2f} of all others kept"
        gone = f"{share} of them left" if goal == "erase" else f"shown in {share} of pictures that missed them"
        weak = outcome["target"] >= INEFFECTIVE if goal == "erase" else outcome["target"] < 1 - INEFFECTIVE
        hardly = f": it hardly {'erases' if goal == 'erase' else 'amplifies'} anything" if weak else ""
        said.append(f"evaluated at this dose on {outcome['of']}, mean: {gone}, {kept}{hardly}")
    elif not result["measured"]:
        differs = f" (other than there: {', '.join(result['differs'])})" if result["differs"] else ""
        said.append(
            f"this dose of {method} to {goal} {result['kind']} was not chosen by an evaluation of this model so sampled"
            f"{differs}"
        )
    return said


def print_features(result: Mapping[str, Any]) -> None:
    """What `gazetteer attribute features` measured, as text."""
    print(sampled_with(result))
    for name, words in (
        ("silenced", "activity with the concept's weights edited / intact"),
        ("patching", "features ranked first by attribution patching that are labelled with the concept"),
        ("written", "Jaccard index of the concept's weights and those of their scope that write a feature"),
        ("written_all", "the same of all weights, the concept's by cad"),
    ):
        print(words)
        print_table({"of": "", name: ">"}, ((which, _cell(interval)) for which, interval in result[name].items()))
        print()
    print("erasing: target and others, found edited / intact")
    print_table(
        {"method": "", "target": ">", "others": ">"},
        ((name, _cell(figures["target"]), _cell(figures["others"])) for name, figures in result["erase"].items()),
    )
    if result.get("left_out"):
        print(f"left out, as no prompt of the reporting half names them: {', '.join(result['left_out'])}")
    print(result["components"])


def write_evaluation(result: Mapping[str, Any], out: str) -> list[str]:
    """Write ``OUT/evaluation.json``, ``evaluation.md`` and the plots as SVG; returns the files."""
    folder = Path(out)
    numbers, page = folder / "evaluation.json", folder / "evaluation.md"
    replace_file(numbers, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    replace_file(page, evaluation_table(result).encode())
    return sorted([str(numbers), str(page), *save_plots(folder, evaluation_plots(result))])


def evaluation_plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """By file name the figures of what `gazetteer.attribution.evaluation.suite.run_suite` gives."""
    made: dict[str, Figure] = {}
    for goal, _ in _GOALS:
        methods = result.get(goal) or {}
        for name in ("target", "others"):
            lines = {m: _line(f["curve"], name) for m, f in methods.items() if f.get("curve")}
            for of, through_features, label in _DOSES:
                own = {m: line for m, line in lines.items() if line and (m in FEATURES) == through_features}
                if own:
                    title = f"{goal}: {name} by dose (choosing half)"
                    made[f"{goal}{of}-{name}.svg"] = curves(title, own, label, name, logarithmic=True)
        for method, figures in methods.items():
            if "interference" in figures:
                title = f"{goal} by {method}: others found, edited / intact (row: edited concept; grey: under {FEWEST})"
                few = _few(figures["interference_pictures"])
                made[f"{goal}-interference-{method}.svg"] = matrix(title, figures["interference"], few)
    for method, choices in (result.get("overlap") or {}).items():
        made[f"overlap-{method}.svg"] = matrix(f"{method}: Jaccard index of the chosen weights", choices)
    for method, concepts in (result.get("distribution") or {}).items():
        title = f"{method}: where the chosen weights lie"
        made[f"distribution-{method}.svg"] = bars(title, {c: _by_place(rows) for c, rows in concepts.items()})
    return made | (_everywhere(result["everywhere"]) if result.get("everywhere") else {})


def _everywhere(everywhere: Mapping[str, Any]) -> dict[str, Figure]:
    title = f"top {everywhere['fraction']:.0%} of all weights by cad"
    steps = {c: {f"step {i + 1}": v for i, v in enumerate(fractions)} for c, fractions in everywhere["step"].items()}
    return {
        **{
            f"everywhere-{place}.svg": bars(
                f"{title}: by {place}", {"all weights": everywhere["weights"][place], **everywhere[place]}
            )
            for place in ("kind", "block")
        },
        "everywhere-step.svg": bars(f"{title}: by sampler step, of Σ |w · dJ/dw|", steps),
        "overlap-everywhere.svg": matrix(f"{title}: Jaccard index", everywhere["overlap"]),
    }


def _unit(rows: Sequence[Mapping[str, Any]], estimator: str) -> str:
    """What the mean of an estimator is of: single weights, or groups if it scores these."""
    units = {row["unit"] for row in rows if row["estimator"] == estimator}
    return "weight" if "weight" in units else ", ".join(sorted(units))


def _few(pictures: Mapping[str, Mapping[str, int]]) -> set[tuple[str, str]]:
    """Cells that rest on fewer than FEWEST pictures."""
    return {(row, column) for row, counts in pictures.items() for column, n in counts.items() if n < FEWEST}


def _by_place(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    places: dict[str, float] = {}
    for row in rows:
        place = f"{row['block']} {row['kind']}"
        places[place] = places.get(place, 0.0) + row["of_all"]
    return places


def _line(curve: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    return [(p["fraction"], *p[name]) for p in curve if None not in p[name]]


def _aside(figures: Mapping[str, Any]) -> str:
    """What a reader of paraphrases and attacks has to know of the prompts."""
    said = [f"{figures['left_out']} prompts too long"] if figures.get("left_out") else []
    said += [f"words name {', '.join(figures['names_it'])}"] if figures.get("names_it") else []
    failed = figures.get("failed_control")
    said += [f"fails on the intact model for {', '.join(failed)}"] if failed else []
    none = [concept for concept, words in figures.get("words", {}).items() if not words]
    return "; ".join([*said, *([f"no words beat none for {', '.join(none)}"] if none else [])])


def _cell(interval: Sequence[float | None], digits: int = 2) -> str | None:
    mean, *ends = interval
    if mean is None:
        return None
    low, high = ends
    if low is None or high is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

"""An evaluation of attribution as text, and as files: numbers, curves, matrices and where the weights lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.files.atomic import replace_file
from gazetteer.jobs.experiments.attribute_table import evaluation_table
from gazetteer.jobs.plots.charts import Point, bars, curves, matrix, save_plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
_SHOWN = ("target", "classifier", "others", "distance")


def print_evaluation(result: Mapping[str, Any]) -> None:
    """The measurements as text."""
    print("faithfulness: Pearson and Spearman of predicted and actual change of J, [low, high] each")
    for row in result["faithfulness_rows"]:
        what = f"{row['estimator']:<16}{row.get('concept', ''):<10}{row['unit']:<8}fraction {row['fraction']:<7}"
        print(f"  {what}{_cell(row['pearson'])}{_cell(row['spearman'])}")
    for estimator, pooled in result.get("faithfulness", {}).items():
        rank = result["faithfulness_spearman"][estimator]
        print(f"  {estimator:<16}{'over concepts and fractions':<31}{_cell(pooled)}{_cell(rank)}")
    print_heldout(result.get("faithfulness_heldout", {}))
    if result.get("features_skipped"):
        print(f"nothing was erased through features: {result['features_skipped']}")
    for goal, what in _GOALS:
        if not result.get(goal):
            continue
        print(
            f"{goal}: target ({what}), the same by the classifier, others kept, distance of others, KID of n pictures"
        )
        for method, figures in result[goal].items():
            quality = figures.get("quality", {"kid": [None], "distinct": 0})
            of = f"  n={quality['distinct']}" if quality["distinct"] else ""
            print(f"  {method:<14}{''.join(_cell(figures[name]) for name in _SHOWN)}{_cell(quality['kid'], 4)}{of}")
            for control, less in figures.get("minus", {}).items():
                print(f"  {'  - ' + control:<16}{''.join(_cell(less[name]) for name in ('target', 'others'))}")
            for name in [name for name in ("paraphrased", "attacked") if name in figures]:
                if why := figures[name].get("skipped"):
                    print(f"  {'  ' + name:<14}skipped: {why}")
                    continue
                cells = f"{_cell(figures[name]['target'])}{_cell(figures[name]['others'])}"
                print(f"  {'  ' + name:<14}{cells}{_aside(figures[name])}")
            real = figures.get("artifacts", {"pictures": 0})
            if real["pictures"]:
                print(f"  {'  artifacts':<14}{_cell(real['rate'])} intact {_cell(real['intact_rate'])}")
    if result.get("attacks"):
        print("attacks: how often the concept is shown; the same less the intact model's rate with an empty prompt")
        print_attacks(result["attacks"])


def print_heldout(estimators: Mapping[str, Any]) -> None:
    """Faithfulness on the noise of the scores and on other noise, stage by stage."""
    if estimators:
        print("faithfulness on the noise of the scores and on other noise: Pearson over all steps; early, middle, late")
    for estimator, figures in estimators.items():
        for noise in ("same", "heldout"):
            stages = " ".join(f"{figures[noise][stage][0]:6.2f}" for stage in ("early", "middle", "late"))
            print(
                f"  {estimator:<18}{noise:<8}{_cell(figures[noise]['all'])}  {stages}  {figures['gradients']} gradients"
            )


def print_attacks(methods: Mapping[str, Any]) -> None:
    """How often the concepts are shown after each attack."""
    for method, attacks in methods.items():
        for attack, figures in attacks.items():
            if "skipped" in figures:
                print(f"  {method:<14}{attack:<16}skipped: {figures['skipped']}")
                continue
            cells = f"{_cell(figures['shown'])}{_cell(figures['above_floor'])}"
            print(f"  {method:<14}{attack:<16}{cells}  n={figures['pictures']}{_aside(figures)}")


def print_edit(result: Mapping[str, Any]) -> None:
    """What `gazetteer attribute edit` made, as text; the last lines are the pictures before and after."""
    fraction, method = result["fraction"], result["method"]
    print(f"{result['goal']} {result['concept']} by {method}: {result['weights']} weights, fraction {fraction:g}")
    if result["short"]:
        print(result["short"])
    if not result["measured"]:
        print(f"{method} was not evaluated with this fraction to {result['goal']} {result['kind']}; see the pictures")
    if result["said"]:
        print(f"{result['said']}; {result['rounding']}")
    print(f"edit    {result['edit']}")
    for name in ("sheet", "before", "after"):
        if result[name]:
            print(f"{name:<7} {result[name]}")
    if not result["before"]:
        print("no pictures: --sheet is 0, or no prompt of the configuration names the concept")


def print_features(result: Mapping[str, Any]) -> None:
    """What `gazetteer attribute features` measured, as text."""
    for name, words in (
        ("silenced", "activity with the concept's weights edited / intact"),
        ("patching", "features ranked first by attribution patching that are labelled with the concept"),
        ("written", "Jaccard index of the concept's weights and those of their scope that write a feature"),
        ("written_all", "the same of all weights, the concept's by cad"),
    ):
        print(words)
        for which, interval in result[name].items():
            print(f"  {which:<10}{_cell(interval)}")
    print("erasing: target and others, found edited / intact")
    for name, figures in result["erase"].items():
        print(f"  {name:<10}{_cell(figures['target'])}{_cell(figures['others'])}")
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
            if lines := {method: line for method, line in lines.items() if line}:
                title = f"{goal}: {name} by fraction of weights (choosing half)"
                made[f"{goal}-{name}.svg"] = curves(title, lines, "fraction of the scope's weights", name)
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
    left = f"  {figures['left_out']} prompts too long" if figures.get("left_out") else ""
    return left + (f"  words name {', '.join(figures['names_it'])}" if figures.get("names_it") else "")


def _cell(interval: Sequence[float | None], digits: int = 2) -> str:
    if any(value is None for value in interval):
        return f"{'-':>21}"
    mean, low, high = (float(value or 0.0) for value in interval)
    return f"{mean:{digits + 5}.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

"""An evaluation of attribution as one page of Markdown: every way to erase side by side, with what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gazetteer.attribution.attacks.names import ATTACKS, INTACT
from gazetteer.attribution.edits.defaults import evaluated

_GOALS = {
    "erase": "Erasing objects", "erase_styles": "Erasing looks", "erase_together": "Objects and looks together",
    "erase_areas": "Erasing areas", "amplify": "Amplifying", "amplify_styles": "Amplifying looks",
}  # fmt: skip


_ONE_BY_ONE = ("erase_styles", "amplify_styles")
"""Goals whose concepts differ too much for a mean: a row by row stands beside it."""


def evaluation_table(result: Mapping[str, Any]) -> str:
    """The page: a table a goal, with the attacks beside erasing objects, and one of faithfulness.

    Args:
        result: of `gazetteer.attribution.evaluation.suite.run_suite`.
    """
    parts = ["# Evaluation of edits", _ABOUT, *filter(None, [sampled_with(result), shared_prompts(result)])]
    for goal, title in _GOALS.items():
        if figures := result.get(goal):
            parts += [
                f"## {title}",
                _concepts(figures),
                _goal(figures, (goal == "erase" and result.get("attacks")) or {}),
                *filter(None, [_too_strong(figures)]),
                *([_each(figures)] if goal in _ONE_BY_ONE else []),
            ]
    if attacks := result.get("attacks"):
        parts += ["## Attacks by concept", _by_concept(attacks)]
    if heldout := result.get("faithfulness_heldout"):
        parts += ["## Faithfulness on other noise", _faithfulness(heldout)]
    if result.get("features_skipped"):
        parts.append(f"Nothing was erased through features: {result['features_skipped']}")
    return "\n\n".join(parts) + "\n"


_ABOUT = (
    "Mean over concepts [95 % interval]. `target`, `classifier`: found edited / intact (of amplifying: shown where the "
    "intact model missed it), by the detector and by the second witness; `others`: of the other concepts named. "
    "`artifacts`: share of the edited pictures outside of what the intact model paints, in brackets the intact model's "
    "own; `realism`: theirs. Attacks: how often the concept is shown again; proper: without concepts that the searched "
    "words name or that the attack cannot get from the intact model either. `seconds`: of CPU to make the edit of one "
    "concept; trajectories that several methods use count for the first."
)


def sampled_with(result: Mapping[str, Any]) -> str:
    """A sentence of how edits were made and pictures painted; nothing of a result from before it said so."""
    if "steps" not in result:
        return ""
    edits = f"edits from {trajectories(result)} and up to {result['context']} prompts that name the concept"
    full = evaluated(result["steps"], result["guidance"], 0)
    if (result["seeds"], result["context"]) != (full.seeds, full.context):
        edits += f" (the full evaluation and `attribute edit` take {full.seeds} and {full.context})"
    return f"Edits are made and pictures painted with {steps_of(result)}; {edits}."


def steps_of(result: Mapping[str, Any]) -> str:
    """The sampler's steps beside the configuration's, and the guidance."""
    steps, configured = result["steps"], result["configured_steps"]
    own = f"{steps}" if steps == configured else f"{steps} of the configuration's {configured}"
    return f"{own} sampler steps at guidance {result['guidance']:g}"


def trajectories(result: Mapping[str, Any]) -> str:
    """How many trajectories of its bare name the published scores of a concept are made from."""
    return f"{result['seeds']} trajector{'y' if result['seeds'] == 1 else 'ies'}"


def shared_prompts(result: Mapping[str, Any]) -> str:
    """A sentence where edits were made from prompts that their doses were chosen on too; else nothing."""
    shared, source = result.get("source_of_choosing_half", (0, 0))
    if not shared:
        return ""
    return (
        f"Too few prompts for two sets: {shared} of the {source} that edits were made from are of the half that doses "
        "were chosen on, so that dose and curve are of prompts that edits have seen; the reporting half is of others."
    )


def _concepts(figures: Mapping[str, Any]) -> str:
    names: list[str] = next((row["concepts"] for row in figures.values() if row.get("concepts")), [])
    return f"{len(names)} concepts: {', '.join(names)}."


def _goal(figures: Mapping[str, Any], attacks: Mapping[str, Any]) -> str:
    tried = [name for name in ATTACKS if any(name in attacked for attacked in attacks.values())]
    head = ["method", "target", "classifier", "others", "artifacts", "realism", "KID", *tried, "fraction", "weights",
            "seconds"]  # fmt: skip
    rows = [_row(method, row, attacks.get(method, {}), tried) for method, row in figures.items()]
    if attacks:
        rows.append(
            [f"`{INTACT}`", *[""] * 6, *(_attack(attacks.get(INTACT, {}).get(name)) for name in tried), "", "", ""]
        )
    return markdown(head, rows)


def _too_strong(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence where a method is shown at a dose that does not keep the others, for it has none that does."""
    names = [f"`{method}`" for method, row in figures.items() if row.get("too_strong")]
    return f"No dose of {', '.join(names)} keeps 90 % of the others: the gentlest is shown." if names else ""


def _each(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Target and others of every concept by itself."""
    names = list(next((row["by_concept"] for row in figures.values() if row.get("by_concept")), {}))
    rows = [
        [f"`{method}`", *(f"{number(figure['target'])}, {number(figure['others'])}"
                          for figure in (row["by_concept"][name] for name in names))]
        for method, row in figures.items() if names and set(names) <= row.get("by_concept", {}).keys()
    ]  # fmt: skip
    return markdown(["`target`, `others` of each", *names], rows) if rows else ""


def _row(method: str, figures: Mapping[str, Any], attacked: Mapping[str, Any], tried: Sequence[str]) -> list[str]:
    real = figures.get("artifacts") or {"pictures": 0}
    rate = f"{interval(real['rate'])} ({number(real['intact_rate'][0])})" if real["pictures"] else ""
    realism = number(real["realism"][0]) if real["pictures"] else ""
    numbers = [interval(figures[name]) if name in figures else "" for name in ("target", "classifier", "others")]
    kid = number((figures.get("quality") or {"kid": [None]})["kid"][0], 4)
    fraction, weights, seconds = figures.get("fraction"), figures.get("weights"), figures.get("seconds")
    taken = ["" if fraction is None else f"{fraction:g}", f"{weights:,.0f}" if weights else "", number(seconds, 1)]
    return [f"`{method}`", *numbers, rate, realism, kid, *(_attack(attacked.get(name)) for name in tried), *taken]


def _attack(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return ""
    if "skipped" in outcome:
        return "skipped"
    proper = outcome.get("proper", outcome["shown"])
    return interval(outcome["shown"]) + ("" if proper == outcome["shown"] else f"; proper {interval(proper)}")


def _by_concept(attacks: Mapping[str, Any]) -> str:
    concepts = sorted(
        {c for many in attacks.values() for outcome in many.values() for c in outcome.get("by_concept", ())}
    )
    rows = [
        [f"`{method}`", attack, *(number(outcome["by_concept"].get(c)) for c in concepts), str(outcome["pictures"])]
        for method, many in attacks.items()
        for attack, outcome in many.items()
        if "by_concept" in outcome
    ]
    return markdown(["method", "attack", *concepts, "pictures"], rows)


def _faithfulness(estimators: Mapping[str, Any]) -> str:
    parts = [
        name
        for name in ("same", "heldout", "objects", "styles")
        if any(name in figures for figures in estimators.values())
    ]
    rows = [
        [
            f"`{name}`",
            *(interval(figures[part]["all"]) if part in figures else "" for part in parts),
            *(number(figures["heldout"][stage][0]) for stage in ("early", "middle", "late")),
            str(figures["trajectories"]), str(figures["gradients"]),
        ]
        for name, figures in estimators.items()
    ]  # fmt: skip
    titles = {"same": "same noise", "heldout": "held-out noise", "objects": "objects", "styles": "looks"}
    return markdown(
        ["estimator", *(titles[p] for p in parts), "early", "middle", "late", "trajectories", "gradients"], rows
    )


def interval(numbers: Sequence[float | None], digits: int = 2) -> str:
    """``0.12 [0.03, 0.20]``; the number alone where one member says nothing of others, empty without any."""
    mean, *ends = numbers
    if mean is None:
        return ""
    low, high = ends
    if low is None or high is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def number(value: float | None, digits: int = 2) -> str:
    """With so many digits after the point; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""Which dose an evaluation of attribution takes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gazetteer.attribution.evaluation.cases import CHOOSE, Case
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig
from gazetteer.attribution.evaluation.evaluators import Observation
from gazetteer.attribution.evaluation.outcomes import Outcome, compare
from gazetteer.jobs.experiments.attribute_table import evaluation_table


def seen(*names: str) -> Observation:
    return Observation(np.zeros((2, 2, 3), np.uint8), dict.fromkeys(names, 0.5))


def test_the_gentlest_dose_that_reaches_the_goal_is_taken_unless_it_costs_others() -> None:
    cases = [Case("a dog and sky", i, frozenset({"dog", "sky"}), CHOOSE) for i in range(10)]
    intact = [seen("dog", "sky")] * 10

    def outcome(dogs: int, skies: int) -> Outcome:
        after = [seen(*["dog"] * (i < dogs), *["sky"] * (i < skies)) for i in range(10)]
        return compare("erase", "dog", cases, intact, after)

    best = EditEvaluation(None, None, [], EvaluationConfig((), ()))._best  # type: ignore[arg-type]
    doses = {0.1: [outcome(5, 10)], 0.2: [outcome(1, 10)], 0.3: [outcome(0, 10)], 0.4: [outcome(0, 5)]}
    assert best("erase", "cad", doses) == 0.3  # one of ten may have been luck, and so may none: the best is taken
    assert best("erase", "cad", {0.1: doses[0.1], 0.2: doses[0.2], 0.4: doses[0.4]}) == 0.2
    assert best("erase", "cad", {0.1: [outcome(5, 8)], 0.2: [outcome(9, 9)]}) == 0.2
    many = {0.1: [outcome(1, 10)] * 40, 0.2: [outcome(0, 10)] * 40}
    assert best("erase", "cad", many) == 0.1  # over forty concepts one of ten is sure
    stubborn = {dose: [*some, outcome(5, 10)] for dose, some in doses.items()}  # of two concepts one hardly goes
    assert best("erase", "cad", stubborn) == 0.3


def test_where_no_dose_keeps_the_others_gentler_ones_are_tried_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case("a dog and sky", i, frozenset({"dog", "sky"}), CHOOSE) for i in range(10)]
    evaluation = EditEvaluation(None, None, [], EvaluationConfig((), ()))  # type: ignore[arg-type]

    def outcome(skies: int) -> Outcome:
        after = [seen(*["sky"] * (i < skies)) for i in range(10)]
        return compare("erase", "dog", cases, [seen("dog", "sky")] * 10, after)

    def curve(kept_below: float) -> dict[float, list[Outcome]]:
        drawn = lambda goal, method, concept, dose, half: outcome(10 if dose < kept_below else 5)  # noqa: E731
        monkeypatch.setattr(evaluation.pairs, "outcome", drawn)
        return evaluation._gentler("erase", "cad", ["dog"], {0.3: [outcome(5)], 0.6: [outcome(0)]})

    assert list(curve(0.2)) == [0.1, 0.3, 0.6] and evaluation._best("erase", "cad", curve(0.2)) == 0.1
    assert list(curve(0.0)) == [0.033, 0.1, 0.3, 0.6] and evaluation._best("erase", "cad", curve(0.0)) == 0.033
    assert [evaluation._keeps("erase", many) for many in curve(0.2).values()] == [True, False, False]
    assert not any(evaluation._keeps("erase", many) for many in curve(0.0).values())
    assert evaluation._gentler("erase", "uce", ["dog"], {}) == {}


def test_the_page_says_which_dose_is_too_strong_and_shows_every_look_by_itself() -> None:
    shown = {**dict.fromkeys(("target", "classifier", "others"), [None] * 3), "concepts": ["night", "neon"]}
    looks = {"night": {"target": 0.25, "others": 0.5}, "neon": {"target": 0.0, "others": None}}
    figures = {"cad": {**shown, "too_strong": True, "by_concept": looks}, "blocking": {**shown, "too_strong": False}}
    page = evaluation_table({"erase_styles": figures})
    assert "No dose of `cad` keeps 90 % of the others: the gentlest is shown." in page
    assert "| `cad` | 0.25, 0.50 | 0.00, " in page and "`blocking` | 0" not in page
    assert "0.25, 0.50" not in evaluation_table({"erase": figures}) and "No dose" in evaluation_table(
        {"erase": figures}
    )

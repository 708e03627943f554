"""Small versions of the simulations that the nulls of labels have to pass (benchmarks/label_null.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import label_null
from benchmarks.label_null import SUN, Simulated, independent, judge, knowing, simulate
from gazetteer.labeling.rules.config import LabelConfig

QUICK = LabelConfig(styles=label_null.STYLES, permutations=200, refine=0)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("independent", {"pictures": 120, "features": 60}),
        ("place", {"pictures": 120}),
        ("holes", {"pictures": 120, "features": 60}),
        ("bottom", {"pictures": 120, "features": 60}),
    ],
)
def test_what_knows_nothing_of_a_concept_is_never_said_to(name: str, sizes: dict[str, int]) -> None:
    found = simulate(name, 1, QUICK, **sizes)
    assert found["tested"] > 400
    assert (found["rejected"], found["trusted"], found["scenes"]) == (0, 0, 0)
    assert found["p_below_05"] < 0.07


def test_what_is_ignored_at_the_bottom_makes_no_feature_one_of_the_top() -> None:
    made = label_null.bottom(np.random.default_rng(4), 120, 60)
    rows, _ = made.candidates(QUICK)
    assert {row["concept"] for row in rows if row["trusted"] and row["kind"] == "place"} <= {"centre"}


def test_random_cells_in_every_picture_of_the_sea_are_a_scene_and_no_place() -> None:
    """The feature that was trusted as "sea" in 120 of 120 simulations before there was a second null."""
    found = simulate("company", 1, QUICK, pictures=160)
    assert (found["tested"], found["rejected"], found["trusted"], found["scenes"]) == (10, 0, 0, 10)


def test_a_look_is_called_a_look_and_not_the_sun_that_comes_with_it() -> None:
    made = label_null.style(np.random.default_rng(1), 160)
    rows, _ = made.candidates(QUICK)
    best = [row for row in rows if row["rank"] == 1]
    assert {(row["concept"], row["kind"]) for row in best} == {("golden", "style")}
    assert len(best) >= 7  # the others are too near to the sun to be called anything
    assert judge(made, QUICK, SUN)["rejected"] == 0


def test_duplicated_features_and_rare_words_give_no_false_discovery() -> None:
    made = independent(np.random.default_rng(2), 120, 6)
    made.fires = [fires for fires in made.fires for _ in range(8)]
    assert judge(made, QUICK)["rejected"] == 0
    found = simulate("open", 1, replace(QUICK, styles=()), pictures=150, words=200)
    assert found["tested"] > 300
    assert (found["rejected"], found["trusted"]) == (0, 0)


def test_features_that_know_a_concept_are_found_among_many_that_do_not() -> None:
    random = np.random.default_rng(3)
    made: Simulated = independent(random, 160, 40)
    made.fires += [knowing(random, made, concept, 25) for concept in (4, 5, 6)]
    rows, _ = made.candidates(QUICK)
    named = {row["feature"]: row["concept"] for row in rows if row["rank"] == 1 and row["kind"] in ("thing", "part")}
    shown = made.concepts.any(axis=2).sum(axis=0)
    for number, concept in enumerate((4, 5, 6)):
        if shown[concept] >= 10:
            assert named[40 + number] == f"c{concept:04d}"
    assert set(named) <= {40, 41, 42}


def test_the_program_prints_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def quick(name: str, repeats: int = 0, config: Any = None, **sizes: int) -> dict[str, Any]:
        return simulate(name, 1, QUICK, pictures=60)

    monkeypatch.setattr(label_null, "simulate", quick)
    assert label_null.main(["--json", "--only", "company"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"tested", "rejected", "trusted", "p_below_05"} <= set(found["company"])

"""Faithfulness on held-out noise, and how real erased pictures are, with values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.artifacts import artifacts
from gazetteer.attribution.evaluation.outcomes import Outcome
from gazetteer.attribution.faithfulness.heldout import (
    STAGES,
    TRIVIAL,
    HeldoutConfig,
    _by_stage,
    heldout_study,
    heldout_summary,
)
from gazetteer.attribution.objective.prompts import without
from tests.support.models.tiny_pipeline import tiny_pipeline


def test_scores_are_asked_about_the_same_ablations_on_their_own_and_on_other_noise() -> None:
    pipe: Any = tiny_pipeline()
    methods = Methods(pipe, MethodConfig(steps=3), ["dog"], {}, without)
    before = [p.detach().clone() for p in pipe.unet.parameters()]
    config = HeldoutConfig(1, 0, ablations=12, fraction=0.02, inputs=2, trajectories=(1, 2), points=1)
    rows = heldout_study(methods, "dog", config, 0)
    assert all((a == b).all() for a, b in zip(before, pipe.unet.parameters(), strict=True))
    names = {row["estimator"] for row in rows}
    assert names == {
        "cad", "cad_live", "integrated_live", "expected_live", "cad_live_x2", "expected_live_x2", *TRIVIAL,
    }  # fmt: skip
    assert len(rows) == len(names) * len(STAGES) * (1 + 2)
    found = heldout_summary(rows, {"dog": "objects"}, 20, 0)
    assert found["cad_live"]["same"]["all"][0] > 0.9  # so few weights go that one gradient foretells all of it
    assert found["cad_live_x2"]["trajectories"] == 2 and found["cad_live_x2"]["gradients"] == 6
    assert found["count"]["gradients"] == 0 and found["cad"]["heldout"] == found["cad"]["objects"]
    assert heldout_study(methods, "dog", config, 0) == rows


def test_stages_are_thirds_of_the_steps_and_the_interval_draws_concepts_then_inputs() -> None:
    guess = np.array([0.0, 1.0, 2.0])
    change = np.stack([guess, -guess, np.zeros(3), guess, np.zeros(3), 5 * guess], axis=1)
    guesses = {"early": guess, "middle": guess, "late": -guess, "all": guess}
    assert _by_stage(guesses, change) == pytest.approx({"early": 0.0, "middle": 1.0, "late": -1.0, "all": 1.0})
    rows = [
        {"concept": c, "estimator": "cad", "noise": "heldout", "stage": "all", "input": i, "pearson": r,
         "trajectories": 1, "gradients": 3}
        for c, values in {"dog": (0.2, 0.4), "night": (0.8, 0.8)}.items() for i, r in enumerate(values)
    ]  # fmt: skip
    found = heldout_summary(rows, {"dog": "objects", "night": "styles"}, 500, 0)["cad"]
    assert found["heldout"]["all"][0] == pytest.approx(0.55) and found["same"]["all"] == [None] * 3
    assert found["objects"]["all"][0] == pytest.approx(0.3) and found["styles"]["all"] == pytest.approx([0.8] * 3)
    assert found["heldout"]["all"][1] < 0.4 and found["heldout"]["all"][2] > 0.75


def outcome(intact: list[float], edited: list[float]) -> Outcome:
    empty = np.empty((0, 2))
    pairs = dict.fromkeys(("target", "area", "named", "others", "near", "far", "unnamed", "read", "read_others"), empty)
    traits = (np.array(intact)[:, None], np.array(edited)[:, None])
    return Outcome(**pairs, change=np.empty(0), by_concept={}, traits=traits)  # type: ignore[arg-type]


def test_pictures_outside_of_every_neighbourhood_of_the_intact_model_are_artifacts() -> None:
    reference = np.arange(10.0)[:, None]  # the third neighbour lies 2 away, of the first and last two 3 and 2
    found = artifacts([outcome([4.0, 5.0], [4.5, 30.0]), outcome([6.0], [20.0])], reference, 100, 0)
    assert found["rate"][0] == pytest.approx((0.5 + 1.0) / 2) and found["intact_rate"][0] == 0.0
    assert found["more"][0] == pytest.approx(0.75) and found["pictures"] == 3 and found["reference"] == 10
    near, far = 2.0 / 0.5, [2.0 / (30 - 8), 2.0 / (20 - 8)]  # of the half with the smaller radii, 1 to 8
    assert found["realism"][0] == pytest.approx((near + far[0] + far[1]) / 3, abs=1e-3)
    nothing = artifacts([], reference, 100, 0)
    assert nothing["rate"] == [None] * 3 and nothing["pictures"] == 0

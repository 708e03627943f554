"""Rows of trials, from pictures made by hand: which picture, place and half each number comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.diffusion.edit_sampler import Start
from gazetteer.labeling.interventions.evaluation.cases import EditCase
from gazetteer.labeling.interventions.evaluation.observer import ObservedPicture
from gazetteer.labeling.interventions.evaluation.scores import structural_distance
from gazetteer.labeling.interventions.evaluation.trials import Trial, Trials

START = Start("a dog", 3)
SITE = Site("mid", "cond", 0.3)
TARGET = Target("mid", "cond", 0.3, (2,))


def box(*corners: int) -> np.ndarray:
    """A mask of 8 x 8 that covers x0, y0, x1, y1."""
    x0, y0, x1, y1 = corners
    mask = np.zeros((8, 8), bool)
    mask[y0:y1, x0:x1] = True
    return mask


GREY = np.full((8, 8, 3), 100, np.uint8)
EDITED = GREY.copy()
EDITED[4:, 4:] = 151  # a fifth of full scale brighter, to the bottom right
EDITED[:4, :4] = 49  # as much darker, to the top left
BEFORE = ObservedPicture(("cow", "dog"), {"dog": box(0, 0, 4, 4), "cow": box(4, 0, 8, 4)}, {"dog": (0.25, 0.25)})
AFTER = ObservedPicture(("dog",), {"dog": box(0, 0, 4, 2)}, {"dog": (0.75, 0.75), "cow": (0.1, 0.1)})


class Observer:
    """Draws GREY, and EDITED with an edit; finds BEFORE in the one and AFTER in the other."""

    saes: dict[Site, Any] = {}  # noqa: RUF012

    def base(self, starts):
        return [GREY for _ in starts]

    def base_found(self, starts):
        return [BEFORE for _ in starts]

    def edited(self, starts, edits, stage):
        assert stage == "early" and len(starts) == len(edits)
        return [EDITED for _ in starts]

    def look(self, pictures, masked=None):
        return [BEFORE if np.array_equal(one, GREY) else AFTER for one in pictures]


class Classifier:
    """Sure of ``day`` as the top left corner is bright."""

    labels = ("day", "night")

    def probabilities(self, pictures):
        light = pictures[:, 0, 0, 0] / 255.0
        return np.stack([light, 1 - light], axis=1).astype(np.float32)


def rows(*trials: Trial) -> list[dict[str, Any]]:
    return Trials(Observer(), Classifier()).run(trials).to_pylist()  # type: ignore[arg-type]


def test_a_spatial_row_by_hand() -> None:
    def row(quadrant: str, method: str = "gazetteer", name: str = "dog") -> dict[str, Any]:
        edit = None if method == "none" else Edit(targets=(TARGET,), region=Region(box=QUADRANTS[quadrant]))
        stage = "" if method == "none" else "early"
        return rows(Trial(EditCase(START, name, quadrant), "heldout", method, 0, stage, "s", edit))[0]

    left = row("top left")
    assert (left["landed"], left["map_landed"]) == (True, False)  # the mask lies there, the score map elsewhere
    assert left["outside_change"] == pytest.approx(0.2 * 16 / 48)  # of the three other quadrants one changed
    assert left["present"] == ["dog"] and left["layout_kept"] is None
    right = row("bottom right")
    assert (right["landed"], right["map_landed"]) == (False, True)
    assert row("top right")["outside_change"] == pytest.approx(0.2 * 32 / 48)
    cow = row("top left", name="cow")
    assert (cow["landed"], cow["map_landed"]) == (False, True)  # not found, but its score map lies there
    plain = row("top left", "none")
    assert (plain["landed"], plain["map_landed"], plain["outside_change"]) == (True, True, 0.0)
    assert plain["present"] == ["cow", "dog"]


def test_a_row_of_a_look_by_hand() -> None:
    edit = Edit(targets=(TARGET,))
    night, day = rows(
        *(Trial(EditCase(START, n), "heldout", "gazetteer", 0, "early", "s", edit) for n in ("night", "day"))
    )
    assert night["rise"] == pytest.approx((100 - 49) / 255) and day["rise"] == pytest.approx(-night["rise"])
    assert night["read_as"] == day["read_as"] == "night" and night["landed"] is None
    assert night["distance"] == structural_distance(GREY, EDITED) > 0.05
    assert night["layout_kept"] == (8 / 16 + 0) / 2  # half of the dog is left, nothing of the cow
    plain = rows(Trial(EditCase(START, "night"), "heldout", "none", 0))[0]
    assert plain["present"] == ["cow", "dog"] and night["present"] == ["dog"]
    assert (plain["rise"], plain["distance"], plain["layout_kept"]) == (0.0, 0.0, 1.0)
    assert (plain["experiment"], plain["stage"], plain["setting"]) == ("global", "", "")

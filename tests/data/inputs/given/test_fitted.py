"""A given picture at the model's size: cut or squashed with its masks, and refused where too little of it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.open import GivenSet
from gazetteer.data.inputs.given.picture import BadPicture, GivenPicture
from tests.data.inputs.given.folders import ade_folder, numbers


def test_a_picture_is_cut_or_squashed_with_its_masks() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    mask = np.zeros((4, 8), bool)
    mask[:, 4:] = True
    edge = np.zeros((4, 8), bool)
    edge[:, 0] = True
    whole = GivenPicture(image, (("right", mask), ("edge", edge)))
    cut = whole.fitted(4, 4, "crop")
    assert cut.image[0, :, 0].tolist() == [0, 0, 255, 255]
    assert [c for c, _ in cut.segments] == ["right"] and cut.segments[0][1][0].tolist() == [False, False, True, True]
    squashed = whole.fitted(4, 4, "squash")
    assert [c for c, _ in squashed.segments][:1] == ["right"] and squashed.segments[0][1].sum() == 8


@pytest.mark.parametrize(("fit", "refused"), [("crop", "training/a"), ("squash", "validation/b")])
def test_what_is_ignored_counts_as_the_model_sees_it(tmp_path: Path, fit: str, refused: str) -> None:
    root = ade_folder(tmp_path)
    middle = np.zeros((6, 8), int)
    middle[:, 3:5] = 1
    for name, values in (("training/a", 1 - middle), ("validation/b", middle)):  # 25 % and 75 % are 0, to be ignored
        numbers(root / "annotations" / f"{name}.png", values)
    given = GivenSet(PicturesConfig(ade20k=str(root), fit=fit), 0)
    failures = []
    for item in given.items(5, "f"):
        try:
            given.fitted(item, 6, 2)  # cut to the two columns in the middle
        except BadPicture as error:
            failures.append(str(error))
    assert len(failures) == 1 and refused in failures[0]


def test_what_is_small_is_there_at_any_size_and_what_is_cut_off_is_not() -> None:
    """Of pixels taken one by one most masks of two pixels would be lost, and the picture would deny them."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, (480, 638), (200, 2))
    masks = np.zeros((200, 480, 640), bool)
    for mask, (row, column) in zip(masks, places, strict=True):
        mask[row, column : column + 2] = True
    whole = GivenPicture(np.zeros((480, 640, 3), np.uint8), tuple((str(i), mask) for i, mask in enumerate(masks)))
    squashed = whole.fitted(128, 128, "squash")
    assert len(squashed.segments) == 200
    for (_, mask), (row, column) in zip(squashed.segments, places, strict=True):
        ((y, x),) = np.argwhere(mask)
        assert abs((y + 0.5) * 480 / 128 - row - 0.5) <= 2.5 and abs((x + 0.5) * 5 - column - 1) <= 3.5
    inside = {str(i) for i, (_, column) in enumerate(places) if 79 <= column < 560}  # the middle 480 of 640
    assert {concept for concept, _ in whole.fitted(128, 128, "crop").segments} == inside

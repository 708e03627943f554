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

"""Given concepts that are one word are refused before a run begins; those of ADE20K's list are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.open import GivenSet
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.pipeline.checks import check_inputs
from gazetteer.labeling.pipeline.given_names import notes_of, require_names
from gazetteer.labeling.vocabulary.concept_index import written_alike
from gazetteer.labeling.vocabulary.concept_list import read_list
from tests.data.inputs.given.folders import ade_folder, numbers, picture


def table(root: Path, *concepts: str) -> str:
    picture(root / "a.png")
    numbers(root / "m.png", np.ones((6, 8)))
    (root / "t.csv").write_text("image,concept,mask\n" + "".join(f"a.png,{name},m.png\n" for name in concepts))
    return str(root / "t.csv")


def test_concepts_that_are_one_word_are_refused_with_both(tmp_path: Path) -> None:
    for pair in (("Dog", "dogs"), ("hot-dog", "hot dog"), ("Straße", "strasse")):
        path = table(tmp_path, "sky", *pair)
        with pytest.raises(InputError, match=r"t\.csv has the concepts .* and .*, which are one by the rule of names"):
            require_names(GivenSet(PicturesConfig(table=path), 0))
        chosen = GivenSet(PicturesConfig(table=path, concepts=("sky",)), 0)
        require_names(chosen)
    with pytest.raises(InputError, match="has the concepts 'dog' and 'dogs'"):
        check_inputs(load_config(None, [f"pictures.table={table(tmp_path, 'dog', 'dogs')}"]).stages)


def test_the_list_of_ade20k_is_told_and_not_refused(tmp_path: Path) -> None:
    root = ade_folder(tmp_path)
    with (root / "objectInfo150.txt").open("a") as listed:
        listed.write("4\t0\t1\t1\t1\twalls\n")
    given = GivenSet(PicturesConfig(ade20k=str(root)), 0)
    require_names(given)
    assert notes_of(given) == ["1 pairs of ADE20K's classes are one word, as 'wall' and 'walls'; all are kept."]


@pytest.mark.parametrize("name", ["coco", "lvis"])
def test_no_two_concepts_of_real_lists_are_one_word(name: str) -> None:
    assert written_alike(read_list(name)) == []

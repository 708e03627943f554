"""Categories whose names would become one: kept apart where their synonyms tell them apart, refused where none do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.ade20k import AdePictures
from gazetteer.data.inputs.given.names import concept_names
from gazetteer.data.inputs.given.voc import VocPictures
from tests.data.inputs.given.folders import ade_folder, numbers, picture


def voc_folder(root: Path, names: str, asked: str | None = None) -> VocPictures:
    """One picture, of class 1 on the left and 2 on the right."""
    picture(root / "JPEGImages" / "a.png")
    classes = np.ones((6, 8), int)
    classes[:, 4:] = 2
    numbers(root / "SegmentationClass" / "a.png", classes)
    (root / "class_names.txt").write_text(names)
    if asked is not None:
        (root / "asked.json").write_text(asked)
    return VocPictures(str(root))


def test_names_that_begin_alike_are_told_apart_by_what_follows() -> None:
    """As the full list of ADE20K has them; the 150 of its challenge have no two that begin alike."""
    names = ("screen, crt screen", "screen, silver screen, projection screen", "blind, screen", "pot, flowerpot", "pot")
    assert tuple(concept_names(names).values()) == (
        "screen (crt screen)", "screen (silver screen or projection screen)", "blind", "pot (flowerpot)", "pot",
    )  # fmt: skip
    assert set(concept_names(["Hot_Dog", "hot dog"]).values()) == {"hot dog"}, "one name, written in two ways"


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    assert voc_folder(tmp_path, "bass, fish\nbass, instrument\n").concepts == ("bass (fish)", "bass (instrument)")
    with pytest.raises(InputError, match="gives the categories 1 and 2 one name, 'dog'"):
        voc_folder(tmp_path, "_background_\ndog\nDog\n")
    root = ade_folder(tmp_path / "ade")
    with (root / "objectInfo150.txt").open("a") as listed:
        listed.write("2\t0\t1\t1\t1\ttower\n")
    with pytest.raises(InputError, match="lists the class 2 twice"):
        AdePictures(str(root))
    text = (root / "objectInfo150.txt").read_text()
    (root / "objectInfo150.txt").write_text(text.replace("2\t0\t1\t1\t1\ttower", "4\t0\t1\t1\t1\tsky"))
    with pytest.raises(InputError, match="gives the categories 3 and 4 one name, 'sky'"):
        AdePictures(str(root))


@pytest.mark.parametrize("background", ["Background", "_Background_", "BACKGROUND"])
def test_the_background_is_no_class_however_it_is_written(tmp_path: Path, background: str) -> None:
    source = voc_folder(tmp_path, f"{background}\ndog\ncat\n")
    assert source.concepts == ("cat", "dog")
    assert [concept for concept, _ in source.read("a").segments] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ('{"a": ["dgo"]}', "the picture a was asked 'dgo', which is no class of the folder; did you mean dog"),
        ('{"a": [1]}', "is not JSON that lists"),
        ('{"a": "dog"}', "is not JSON that lists"),
        ('{"a.png": ["dog"]}', r"names no picture of the folder: it has a\.png, the folder a"),
    ],
)
def test_what_a_voc_folder_was_asked_are_its_classes(tmp_path: Path, asked: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        voc_folder(tmp_path, "dog\ncat\n", asked)
    source = voc_folder(tmp_path, "dog\ncat\n", '{"a": ["Dog"], "b": []}')
    assert source.read("a").unasked == {"cat"} and "1 pictures of 2" in source.notes[0]

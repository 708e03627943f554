"""Masks as COCO run lengths, as pycocotools writes and reads them, and nothing corrupt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.masks import mask_to_struct, struct_to_mask

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


def test_by_hand():
    # Column by column: 0 1 | 1 0 -> runs 1, 2, 1, each below 16: one character, 48 + n.
    assert mask_to_struct(np.array([[0, 1], [1, 0]], bool)) == {"size": [2, 2], "counts": "121"}
    # A mask pixel first: the background run is 0.
    assert mask_to_struct(np.array([[1], [0], [0]], bool)) == {"size": [3, 1], "counts": "012"}
    # From the fourth run on, differences to the run two before: 1, 2, 1, 2 -> 1, 2, 1, 0.
    assert mask_to_struct(np.array([[0, 1, 1, 0, 1, 1]], bool))["counts"] == "1210"


def test_a_run_of_sixteen_needs_two_characters():
    # 16 = 0b10000 would read as negative in five bits: 0b10000 with "more" (112 - 48 = 48 -> '`'), then 0.
    assert mask_to_struct(np.zeros((4, 4), bool)) == {"size": [4, 4], "counts": "`0"}


@given(masks)
def test_round_trip(mask):
    struct = mask_to_struct(mask)
    assert np.array_equal(struct_to_mask(struct), mask)


@given(masks)
def test_pycocotools_writes_the_same_and_reads_ours(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = mask_to_struct(mask)
    assert theirs == {"size": ours["size"], "counts": ours["counts"].encode()}
    assert np.array_equal(coco.decode(ours), mask)
    assert np.array_equal(struct_to_mask(theirs), mask)


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (3, 2000), (2000, 3)])
@pytest.mark.parametrize("kind", ["empty", "full", "dots", "blob"])
def test_pycocotools_agrees_on_large_and_odd_masks(shape, kind):
    rows, columns = np.indices(shape)
    mask = {
        "empty": np.zeros(shape, bool),
        "full": np.ones(shape, bool),
        "dots": (rows * 7 + columns * 3) % 5 == 0,
        "blob": (rows / shape[0] - 0.5) ** 2 + (columns / shape[1] - 0.4) ** 2 < 0.1,
    }[kind]
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert mask_to_struct(mask)["counts"] == theirs["counts"].decode()
    assert np.array_equal(struct_to_mask(theirs), mask)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_runs_of_zero_length_are_read_as_pycocotools_reads_them(runs):
    total = max(1, sum(runs))
    uncompressed = {"size": [total, 1], "counts": runs if sum(runs) else [1]}
    theirs = coco.frPyObjects(uncompressed, total, 1)
    assert np.array_equal(struct_to_mask(theirs), coco.decode(theirs))


@pytest.mark.parametrize(
    "struct",
    [
        {"size": [2, 2], "counts": "12"},  # three pixels of four
        {"size": [2, 2], "counts": "122"},  # five pixels of four
        {"size": [2, 2], "counts": "12`"},  # cut short: "more follows" at the end
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "1 2"},
        {"size": [2, 2], "counts": "1é"},
        {"size": [2, 2], "counts": "O5"},  # -1, then 5: adds up, but runs backwards
        {"size": [2, 2], "counts": "o" * 12 + "0"},  # a number of 65 bits
        {"size": [2, 2], "counts": None},
        {"size": [0, 4], "counts": "0"},
        {"size": [-2, -2], "counts": "121"},
        {"size": [10**6, 10**6], "counts": "0"},
        {"size": [4], "counts": "4"},
        {"size": None, "counts": "4"},
        {"counts": "4"},
        None,
    ],
)
def test_a_corrupt_struct_gets_a_sentence(struct):
    with pytest.raises(InputError, match=r"mask"):
        struct_to_mask(struct)


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30))
def test_any_string_is_a_mask_or_an_input_error(text):
    try:
        mask = struct_to_mask({"size": [5, 7], "counts": text})
    except InputError:
        return
    assert mask.shape == (5, 7)


def test_only_two_dimensions_are_a_mask():
    with pytest.raises(InputError, match=r"\[height, width\]"):
        mask_to_struct(np.zeros((2, 2, 2), bool))

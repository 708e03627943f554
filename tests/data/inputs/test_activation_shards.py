"""Activation shards: what would be trained on by half, or written over, is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.activation_dataset import ActivationDataset
from gazetteer.data.inputs.activations import ActivationWriter

A = Site("b", "cond", 0.5)


def test_two_sites_of_one_name_are_refused(tmp_path: Path):
    """One would be written over the other."""
    with pytest.raises(InputError, match=r"called b-cond-t0\.33; t is told apart by two decimals"):
        ActivationWriter(tmp_path, [Site("b", "cond", 0.331), Site("b", "cond", 0.334)])


def test_shards_that_are_wanted_have_to_be_there(tmp_path: Path):
    writer = ActivationWriter(tmp_path, [A])
    for shard in ("s0", "s1"):
        writer.add(shard, {A: np.zeros((4, 1))}, [f"{shard}-i", f"{shard}-j"])
    assert ActivationDataset(tmp_path, A, "all", shards=["s0"]).vectors == 4
    with pytest.raises(InputError, match="lack 1 of the 2 shards wanted, the first s9"):
        ActivationDataset(tmp_path, A, "all", shards=["s0", "s9"])


def test_rows_of_images_may_be_numbers_of_an_array(tmp_path: Path):
    spoken = Site("b", "cond", 0.5, "text")
    ActivationWriter(tmp_path, [spoken]).add("s", {spoken: np.zeros((4, 1))}, ["i", "j"], {spoken: np.array([1, 3])})
    assert ActivationDataset(tmp_path, spoken, "all").vectors == 4

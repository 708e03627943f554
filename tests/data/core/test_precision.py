"""The number type that a device gets, as the configurations of models say it and fingerprints count it."""

from __future__ import annotations

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.load import ModelConfig
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.segment.protocol import SegmenterConfig


@pytest.mark.parametrize("kind", [ModelConfig, DetectorConfig, SegmenterConfig])
def test_the_device_chooses_where_nobody_does(kind: type) -> None:
    asked = [{}, {"device": "cuda:1"}, {"device": "mps"}, {"device": "cuda", "dtype": "float32"}, {"dtype": "bfloat16"}]
    made = [kind(path="x", **one).dtype for one in asked]
    assert made == ["float32", "float16", "float32", "float32", "bfloat16"]
    with pytest.raises(InputError, match=r"dtype is 'half'; accepted: empty, float32, float16, bfloat16"):
        kind(path="x", dtype="half")


def test_the_authors_grounding_dino_stays_in_float32() -> None:
    assert DetectorConfig(path="x", device="cuda", library="groundingdino").dtype == "float32"


def test_a_fingerprint_holds_what_was_chosen() -> None:
    plain, named = load_config(None), load_config(None, ["model.dtype=float32", "detector.dtype=float32"])
    assert fingerprint_of(plain) == fingerprint_of(named)
    moved = fingerprint_of(load_config(None, ["segmenter.device=cuda", "executor=serial"]))
    assert {key for key, value in moved.items() if fingerprint_of(plain).get(key) != value} == {
        "segmenter.device", "segmenter.dtype",
    }  # fmt: skip

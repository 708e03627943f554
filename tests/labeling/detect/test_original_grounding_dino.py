"""Grounding DINO through `groundingdino-py`: the same weights give what they give through transformers."""

import dataclasses
import functools
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.grounding_dino.settings import (
    BACKBONES,
    PUBLISHED,
    GroundingDinoSettings,
    SwinSettings,
    build_settings,
    read_settings,
)
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.phrases import build_caption
from gazetteer.labeling.detect.protocol import DetectorConfig
from tests.support.models.grounding_dino_keys import GROUNDING_DINO
from tests.support.models.original_models import (
    EMBEDDED,
    both_detectors,
    original_detector,
    original_weights,
    pictures,
    random_detector,
)

ASKED = [["sky", "hot air balloon"], ["cat"], ["tree", "dog", "sky", "grass"]]
FOLDERS = ["random", *(["embedded"] if (EMBEDDED / "detector" / "model.safetensors").exists() else [])]


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request, tmp_path_factory) -> Path:
    if request.param == "embedded":
        return EMBEDDED / "detector"
    return random_detector(tmp_path_factory.mktemp("transformers"))


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        clamp_as_transformers(patch)
        yield both_detectors(folder, tmp_path_factory.mktemp("original"), box_threshold=0.0)


def clamp_as_transformers(patch: pytest.MonkeyPatch) -> None:
    """The one number that the libraries set differently: how near to the border (1e-3 of the picture, 1e-5 in
    transformers) the side of a box is held while layers refine it. Trained models put boxes there."""
    for name in ("transformer", "groundingdino"):
        module = importlib.import_module(f"groundingdino.models.GroundingDINO.{name}")
        patch.setattr(module, "inverse_sigmoid", functools.partial(module.inverse_sigmoid, eps=1e-5))


def test_the_clamp_at_the_border_is_all_that_differs_and_little(folder, tmp_path):
    transformers, original = both_detectors(folder, tmp_path, box_threshold=0.0)
    images = pictures(3)
    assert_close(call(transformers, images, ASKED), call(original, images, ASKED), 2e-2)


def call(detector, images, asked):
    return detector._call(detector._pixels(images), [build_caption(one, detector.tokenizer) for one in asked])


def assert_close(left, right, tolerance):
    for (logits, boxes), (other_logits, other_boxes) in zip(left, right, strict=True):
        torch.testing.assert_close(logits, other_logits, atol=tolerance, rtol=0)
        torch.testing.assert_close(boxes, other_boxes, atol=tolerance, rtol=0)


def test_both_libraries_give_the_same_logits_and_boxes(pair):
    transformers, original = pair
    images = pictures(3)
    assert_close(call(transformers, images, ASKED), call(original, images, ASKED), 1e-4)


@pytest.mark.parametrize("side", [100, 128, 200, 512])
def test_both_libraries_scale_pictures_to_the_same_pixels(pair, side):
    transformers, original = pair
    images = pictures(1, side, side)
    mine = transformers.images(images=images, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    assert mine.shape == (1, 3, 128, 128)
    assert torch.equal(mine[0], original._pixels(images[:1])[0])


def test_pictures_with_different_captions_do_not_mix_in_a_batch(pair):
    original = pair[1]
    images = pictures(3)
    alone = [call(original, [image], [asked])[0] for image, asked in zip(images, ASKED, strict=True)]
    assert_close(call(original, images, ASKED), alone, 1e-4)
    assert not torch.allclose(alone[0][1], alone[1][1], atol=1e-3)


def test_pictures_of_unequal_size_are_padded_alike(pair):
    original = pair[1]
    images = [*pictures(1), *pictures(1, height=96), *pictures(1, width=64)]
    alone = [call(original, [image], [asked])[0] for image, asked in zip(images, ASKED, strict=True)]
    together = call(original, images, ASKED)
    # padding shifts where the windows of the backbone end: close for the picture that needs none
    assert_close(together[:1], alone[:1], 1e-4)
    assert all(torch.isfinite(boxes).all() for _, boxes in together)


def alike(a, b):
    return a.concept == b.concept and abs(a.score - b.score) < 2e-4 and np.allclose(a.box, b.box, atol=0.03, rtol=0)


def test_detections_agree_and_do_not_depend_on_the_batch(pair):
    transformers, original = pair
    images = pictures(3)
    found = original.detect(images, ASKED)
    assert [original.detect([image], [asked])[0] for image, asked in zip(images, ASKED, strict=True)] == found
    assert any(found)
    for left, right in zip(transformers.detect(images, ASKED), found, strict=True):
        # not by position: scores that round alike may change places
        assert len(left) == len(right)
        assert all(any(alike(a, b) for b in right) for a in left)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = random_detector(tmp_path_factory.mktemp("transformers"))
    return original_detector(folder, tmp_path_factory.mktemp("original"))


def changed(base: DetectorConfig, /, **changes) -> DetectorConfig:
    return dataclasses.replace(base, **changes)


def test_a_safetensors_checkpoint_loads_too(config, tmp_path):
    from safetensors.torch import save_file

    weights = original_weights(Path(config.text_encoder), GROUNDING_DINO)
    save_file(weights, tmp_path / "detector.safetensors")
    found = [
        load_detector(one).detect(pictures(1), [["sky"]])
        for one in (changed(config, path=str(tmp_path / "detector.safetensors")), config)
    ]
    assert found[0] == found[1]


def test_a_checkpoint_that_does_not_fit_gets_a_sentence(config, tmp_path):
    weights = original_weights(Path(config.text_encoder), GROUNDING_DINO)
    missing = {name: one for name, one in weights.items() if name != "feat_map.weight"}
    for state, said in [
        (missing, "lacks 'feat_map.weight'"),
        ({**weights, "feat_map.weight": torch.zeros(2, 2)}, "'feat_map.weight' is \\[2, 2\\]"),
        ({**weights, "other": torch.zeros(1)}, "the model has no 'other'"),
    ]:
        torch.save(state, tmp_path / "wrong.pth")
        with pytest.raises(InputError, match=said):
            load_detector(changed(config, path=str(tmp_path / "wrong.pth")))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("path", "nowhere.pth", "does not exist"),
        ("config", "settings.py", "accepted: GroundingDINO_SwinT_OGC, GroundingDINO_SwinB_cfg, or a .json"),
        ("text_encoder", "./nowhere", "The text encoder folder ./nowhere does not exist"),
        ("dtype", "float16", "accepted: float32"),
    ],
)
def test_wrong_settings_get_a_sentence(config, field, value, said):
    with pytest.raises(InputError, match=said):
        load_detector(changed(config, **{field: value}))


def test_published_settings_are_built_in():
    assert read_settings("GroundingDINO_SwinT_OGC") == GroundingDinoSettings()
    assert PUBLISHED["GroundingDINO_SwinB_cfg"].backbone == SwinSettings(128, (2, 2, 18, 2), (4, 8, 16, 32), 12)


def test_settings_come_from_json_or_yaml_by_the_authors_names(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"backbone": "swin_B_384_22k", "enc_layers": 2, "batch_size": 1}))
    assert read_settings(str(tmp_path / "a.json")) == GroundingDinoSettings(BACKBONES["swin_B_384_22k"], enc_layers=2)
    (tmp_path / "a.yaml").write_text("backbone: {embed_dim: 32, mlp_ratio: 2}\nreturn_interm_indices: [2, 3]\n")
    assert read_settings(str(tmp_path / "a.yaml")) == GroundingDinoSettings(
        SwinSettings(embed_dim=32, mlp_ratio=2.0), return_interm_indices=(2, 3)
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"layers": 2}, "Unknown detector setting 'layers'"),
        ({"enc_layers": "two"}, "enc_layers is 'two'"),
        ({"use_text_enhancer": False}, "use_text_enhancer is False; accepted: True"),
        ({"backbone": "resnet50"}, "backbone is 'resnet50'"),
        ({"hidden_dim": 128}, "width 256 only"),
        ({"max_text_len": 512}, "accepted: 1 to 256"),
    ],
)
def test_settings_that_are_not_accepted_get_a_sentence(raw, said):
    with pytest.raises(InputError, match=said):
        build_settings(raw)

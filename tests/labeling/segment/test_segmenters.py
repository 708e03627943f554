"""The transformers SAM segmenter, on a small model with random weights."""

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.segment.sam import scale_boxes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import (
        SamConfig,
        SamImageProcessor,
        SamMaskDecoderConfig,
        SamModel,
        SamProcessor,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=32, output_channels=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8,
        window_size=4, global_attn_indexes=[1], num_pos_feats=16,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=8)
    decoder = SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=32
    )
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=1.0 if "positional" in name else 0.2)
    path = tmp_path_factory.mktemp("segmenter")
    model.save_pretrained(path)
    images = SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    )  # fmt: skip
    SamProcessor(images).save_pretrained(path)
    return str(path)


def config(folder, **changes):
    return SegmenterConfig(path=folder, **changes)


def pictures():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(64, 64), (80, 48), (64, 64), (32, 96)]]


BOXES = [
    [(4.0, 4.0, 30.0, 40.0), (10.0, 20.0, 60.0, 64.0), (0.0, 0.0, 64.0, 64.0)],
    [(0.0, 10.0, 48.0, 70.0)],
    [],
    [(5.0, 5.0, 50.0, 30.0), (40.0, 2.0, 96.0, 32.0)],
]


def same(left, right):
    def flat(found):
        return [(row, m.predicted_iou, m.mask.tobytes()) for row, masks in enumerate(found) for m in masks]

    return flat(left) == flat(right)


def test_one_mask_per_box_at_the_size_of_the_picture(folder):
    found = load_segmenter(config(folder)).segment(pictures(), BOXES)
    assert [len(masks) for masks in found] == [3, 1, 0, 2]
    for picture, masks in zip(pictures(), found, strict=True):
        for mask in masks:
            assert mask.mask.shape == picture.shape[:2]
            assert mask.mask.dtype == np.bool_
            assert mask.predicted_iou == round(mask.predicted_iou, 4)
    assert any(mask.mask.any() and not mask.mask.all() for masks in found for mask in masks)


def test_a_picture_gets_the_same_masks_alone_and_in_any_batch(folder):
    together = load_segmenter(config(folder)).segment(pictures(), BOXES)
    assert same(load_segmenter(config(folder, batch_size=1)).segment(pictures(), BOXES), together)
    segmenter = load_segmenter(config(folder))
    alone = [segmenter.segment([picture], [boxes])[0] for picture, boxes in zip(pictures(), BOXES, strict=True)]
    assert same(alone, together)


def test_batched_encoding_agrees_up_to_rounding(folder):
    exact = load_segmenter(config(folder)).segment(pictures(), BOXES)
    batched = load_segmenter(config(folder, exact=False)).segment(pictures(), BOXES)
    for left, right in zip(exact, batched, strict=True):
        for a, b in zip(left, right, strict=True):
            assert np.mean(a.mask != b.mask) < 0.01
            assert abs(a.predicted_iou - b.predicted_iou) < 1e-3


def test_many_boxes_are_decoded_in_parts(folder):
    many = [[BOXES[0][i % 3] for i in range(7)]]
    whole = load_segmenter(config(folder)).segment(pictures()[:1], many)
    parts = load_segmenter(config(folder, boxes_per_call=3)).segment(pictures()[:1], many)
    assert len(parts[0]) == 7
    for a, b in zip(whole[0], parts[0], strict=True):
        assert np.mean(a.mask != b.mask) < 0.01


def test_masks_depend_on_their_box(folder):
    (masks,) = load_segmenter(config(folder)).segment(pictures()[:1], BOXES[:1])
    assert not np.array_equal(masks[0].mask, masks[2].mask)


def test_boxes_are_scaled_per_axis():
    scaled = scale_boxes([(10.0, 20.0, 30.0, 40.0)], original=(80, 48), resized=(64, 24))
    assert scaled.tolist() == [[5.0, 16.0, 15.0, 32.0]]


def test_nothing_to_do(folder):
    segmenter = load_segmenter(config(folder))
    assert segmenter.segment([], []) == []
    assert segmenter.segment(pictures()[:2], [[], []]) == [[], []]


def test_lists_of_unequal_length_are_refused(folder):
    with pytest.raises(InputError, match="4 pictures but 1 lists"):
        load_segmenter(config(folder)).segment(pictures(), BOXES[:1])


def test_wrong_paths_get_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_segmenter(SegmenterConfig(path=str(tmp_path / "nowhere")))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="is a bert model"):
        load_segmenter(SegmenterConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("field", "value"), [("library", "fast"), ("dtype", "int8"), ("batch_size", 0), ("boxes_per_call", 0)]
)
def test_wrong_settings_get_a_sentence(field, value):
    with pytest.raises(InputError, match=f"segmenter.{field}"):
        SegmenterConfig(path="x", **{field: value})


def test_out_of_memory_with_one_picture_names_what_to_try(folder):
    segmenter = load_segmenter(config(folder, exact=False, batch_size=4))
    segmenter.images.pad_size = {"height": 2**26, "width": 2**26}
    with pytest.raises(
        GazetteerError, match=r"Out of memory while segmenting \(1 at once\); try segmenter.dtype=float16"
    ):
        segmenter.segment(pictures(), BOXES)


def one_alone(_, args):
    """A forward pre-hook that fails to allocate for more than one picture."""
    if len(args[0]) > 1:
        torch.empty(2**60)


def test_masks_are_those_of_a_batch_that_fits(folder, caplog):
    """The encoder asks for more memory than there is whenever it sees more than one picture."""
    whole, short = (load_segmenter(config(folder, exact=False, batch_size=size)) for size in (1, 8))
    short.model.vision_encoder.register_forward_pre_hook(one_alone)
    assert same(short.segment(pictures(), BOXES), whole.segment(pictures(), BOXES))
    assert same(short.segment(pictures(), BOXES), whole.segment(pictures(), BOXES))
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory while segmenting, 3 at once; a worker goes on with segmenter.batch_size=1."
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_only_the_image_encoder_is_halved(folder, dtype):
    whole, half = (load_segmenter(config(folder, dtype=one)) for one in ("float32", dtype))
    kinds = {name.split(".")[0]: p.dtype for name, p in half.model.named_parameters()}
    assert kinds.pop("vision_encoder") == getattr(torch, dtype)
    assert set(kinds.values()) == {torch.float32}
    rows = zip(whole.segment(pictures(), BOXES), half.segment(pictures(), BOXES), strict=True)
    pairs = [pair for row in rows for pair in zip(*row, strict=True)]
    off = np.concatenate([(one.mask != other.mask).ravel() for one, other in pairs]).mean()
    assert 0 < max(abs(a.predicted_iou - b.predicted_iou) for a, b in pairs) < 0.05
    assert off < 0.02


def test_masks_of_no_numbers_are_refused_instead_of_empty(folder):
    segmenter = load_segmenter(config(folder))
    with torch.no_grad():
        next(segmenter.model.vision_encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the segmenter gave values that are no numbers; segmenter\.dtype=bfloat16"):
        segmenter.segment(pictures(), BOXES)

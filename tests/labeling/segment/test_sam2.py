"""The SAM 2 segmenter, on a small model with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.labeling.pipeline.flops import segmenter_flops
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.segment.sam2 import Sam2Segmenter
from tests.labeling.segment.test_segmenters import BOXES, pictures, same


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    torch.manual_seed(0)
    backbone = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone.to_dict(), backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    prompt = Sam2PromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16)
    decoder = Sam2MaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=32
    )
    model = Sam2Model(
        Sam2Config(
            vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=1.0 if "positional" in name else 0.2)
    path = tmp_path_factory.mktemp("sam2")
    model.save_pretrained(path)
    Sam2ImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return str(path)


def segmenter(folder: str, **changes: object) -> Sam2Segmenter:
    found = load_segmenter(SegmenterConfig(path=folder, **changes))  # type: ignore[arg-type]
    assert isinstance(found, Sam2Segmenter)
    return found


def test_one_mask_per_box_as_the_library_gives_it(folder: str) -> None:
    made = segmenter(folder)
    found = made.segment(pictures(), BOXES)
    assert [len(masks) for masks in found] == [3, 1, 0, 2]
    for row, (picture, boxes, masks) in enumerate(zip(pictures(), BOXES, found, strict=True)):
        if not boxes:
            continue
        height, width = picture.shape[:2]
        inputs = made.images(images=[picture], return_tensors="pt", input_data_format="channels_last")
        scale = torch.tensor([64 / width, 64 / height, 64 / width, 64 / height])
        with torch.inference_mode():
            out = made.model(
                pixel_values=inputs["pixel_values"], input_boxes=(torch.tensor(boxes) * scale)[None],
                multimask_output=False,
            )  # fmt: skip
            whole = made.images.post_process_masks(out.pred_masks, inputs["original_sizes"])[0]
        for i, mask in enumerate(masks):
            assert mask.mask.shape == (height, width), row
            assert np.array_equal(mask.mask, whole[i, 0].numpy())
            assert abs(mask.predicted_iou - float(out.iou_scores[0, i, 0])) < 1e-4
    assert any(mask.mask.any() and not mask.mask.all() for masks in found for mask in masks)


def test_masks_do_not_depend_on_the_batch(folder: str) -> None:
    together = segmenter(folder).segment(pictures(), BOXES)
    alone = [segmenter(folder).segment([p], [b])[0] for p, b in zip(pictures(), BOXES, strict=True)]
    assert same(alone, together)
    for batched in (segmenter(folder, exact=False), segmenter(folder, exact=False, boxes_per_call=1)):
        for left, right in zip(together, batched.segment(pictures(), BOXES), strict=True):
            for a, b in zip(left, right, strict=True):
                assert np.mean(a.mask != b.mask) < 0.01
                assert abs(a.predicted_iou - b.predicted_iou) < 1e-3


def test_a_folder_of_the_video_model_is_read_too(folder: str, tmp_path: Path) -> None:
    """The published folders call themselves sam2_video; their picture part is the same network."""
    for file in Path(folder).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "sam2_video"}))
    boxes = BOXES[:1]
    assert same(
        segmenter(str(tmp_path)).segment(pictures()[:1], boxes), segmenter(folder).segment(pictures()[:1], boxes)
    )


def test_out_of_memory_with_one_picture_names_what_to_try(folder: str) -> None:
    made = segmenter(folder, exact=False, batch_size=4)
    made.images.size = {"height": 2**26, "width": 2**26}
    with pytest.raises(
        GazetteerError, match=r"Out of memory while segmenting \(1 at once\); try segmenter.dtype=float16"
    ):
        made.segment(pictures(), BOXES)


def test_a_checkpoint_file_is_sent_to_its_library(folder: str) -> None:
    with pytest.raises(InputError, match=r"set segmenter\.library to segment_anything"):
        load_segmenter(SegmenterConfig(path=str(Path(folder) / "model.safetensors")))


@pytest.mark.parametrize("kind", ["sam2", "sam2_video"])
def test_its_operations_are_counted_as_they_run(folder: str, tmp_path: Path, kind: str) -> None:
    for name in ("config.json", "preprocessor_config.json"):  # a plan reads no weights
        (tmp_path / name).write_bytes((Path(folder) / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        segmenter(folder).segment(pictures()[:1], BOXES[:1])
    counted = segmenter_flops(SegmenterConfig(path=str(tmp_path)), len(BOXES[0]))
    assert sum(counted) == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert min(counted) > 0

"""Published architectures at full size with random weights: paths, grids, a whole shard, parity (`make check-full`)."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from diffusion.blocks import Block, describe
from jobs.config import load_config
from labeling.detectors import DetectorConfig, load_detector
from labeling.sam import scale_boxes
from labeling.segmenters import SegmenterConfig, load_segmenter
from tests import published_models as published
from tests.full_size import CONCEPTS, WORDS, rehearse
from tests.original_models import pictures
from tests.test_original_grounding_dino import call, clamp_as_transformers

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


def unet(settings: dict[str, Any]) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        model: torch.nn.Module = UNet2DConditionModel(**settings)
    return model


SDXL_BLOCKS = load_config("sdxl-turbo").generation.blocks


@pytest.mark.parametrize(
    ("preset", "settings", "grids", "parameters"),
    [
        ("paper-sd14", published.SD14_UNET, {"mid_block.attentions.0": 8}, 859_520_964),
        ("sdxl-turbo", published.SDXL_TURBO_UNET, {}, 2_567_463_684),
        ("sdxl-turbo", published.SDXL_UNET, dict.fromkeys(SDXL_BLOCKS, 32), 2_567_463_684),
    ],
    ids=["sd14", "sdxl-turbo", "sdxl"],
)  # fmt: skip
def test_blocks_grids_and_widths_are_the_papers(preset: str, settings: dict, grids: dict, parameters: int) -> None:
    """SD 1.4: 16 x 16 x 1280 (down, up) and 8 x 8 x 1280 (mid); SDXL: 16 x 16 at 512 px, 32 x 32 at 1024."""
    model = unet(settings)
    assert sum(p.numel() for p in model.parameters()) == parameters
    there = {one.block: one for one in describe(model)}
    for block in load_config(preset).generation.blocks:
        side = grids.get(block, 16)
        assert there[block] == Block(block, side, side, 1280)


def test_a_shard_goes_through_every_stage(tmp_path: Path) -> None:
    found = rehearse(tmp_path, pictures=1, steps=3, threads=os.cpu_count() or 1)
    run = tmp_path / "run"
    assert set(found["stage_seconds"]) >= {"generate", "detect", "segment", "evidence", "reduce"}
    (image,) = pq.read_table(run / "images").to_pylist()
    assert (image["height"], image["width"]) == (512, 512)
    codes = pq.read_table(run / "codes").to_pylist()
    assert len(codes) == 18
    for row in codes:
        side = 8 if row["block"] == "mid_block.attentions.0" else 16
        assert (row["height"], row["width"], row["k"]) == (side, side, 10)
        assert len(row["feature"]) == side * side * 10
        assert max(row["value"]) > 0
    assert pq.read_metadata(run / "features.parquet").num_rows == 18 * 5120
    assert found["segments"] > 0
    assert pq.read_metadata(run / "segments" / next(iter(os.listdir(run / "segments")))).num_rows == found["segments"]
    assert {row["concept"] for row in pq.read_table(run / "segments").to_pylist()} <= set(CONCEPTS)
    assert found["summary"]["failing"] == 0


@pytest.mark.xfail(
    reason="212 of the 900 queries agree, the others do not; perhaps the equal scores of cells at the border, among "
    "which the libraries choose differently: not yet shown"
)
def test_grounding_dino_gives_the_same_through_both_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = published.write_grounding_dino(tmp_path / "grounding-dino-tiny", WORDS)
    text = published.write_bert(tmp_path / "bert-base-uncased", WORDS)
    file = published.write_original_grounding_dino(folder, tmp_path / "original")
    images, asked = pictures(2, 512, 512), [CONCEPTS[:3], CONCEPTS[2:]]
    mine = call(load_detector(DetectorConfig(path=str(folder))), images, asked)
    gc.collect()
    clamp_as_transformers(monkeypatch)
    settings = {"config": str(file.parent / "GroundingDINO_SwinT_OGC.py"), "text_encoder": str(text)}
    theirs = call(load_detector(DetectorConfig(path=str(file), library="groundingdino", **settings)), images, asked)
    for (logits, boxes), (other_logits, other_boxes) in zip(mine, theirs, strict=True):
        assert boxes.shape == (900, 4)
        assert float(boxes.std()) > 1e-2 and float(logits.std()) > 1e-2
        torch.testing.assert_close(logits, other_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(boxes, other_boxes, atol=1e-4, rtol=0)


def test_sam_gives_the_same_through_both_libraries(tmp_path: Path) -> None:
    folder = published.write_sam(tmp_path / "sam-vit-base")
    file = published.write_original_sam(folder, tmp_path / "original")
    mine = load_segmenter(SegmenterConfig(path=str(folder)))
    theirs = load_segmenter(SegmenterConfig(path=str(file), library="segment_anything", model_type="vit_b"))
    # the one number that the libraries set differently: 1e-6 in transformers, torch's 1e-5 in the original
    for layer in theirs.model.mask_decoder.transformer.layers:
        for norm in (layer.norm1, layer.norm2, layer.norm3, layer.norm4):
            norm.eps = 1e-6
    images = pictures(1, 384, 512)
    with torch.inference_mode():
        left, originals, resized = mine._embed(images)
        right = theirs._embed(images)[0]
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
        boxes = scale_boxes([(4.0, 4.0, 260.0, 380.0), (100.5, 20.25, 360.0, 164.0)], originals[0], resized[0])
        out = mine.model(image_embeddings=left, input_boxes=boxes[None], multimask_output=False)
        sparse, dense = theirs.model.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, scores = theirs.model.mask_decoder(
            image_embeddings=right, image_pe=theirs.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=False,
        )  # fmt: skip
    torch.testing.assert_close(out.pred_masks[0], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.iou_scores[0], scores, atol=1e-4, rtol=1e-4)
    assert float(logits.std()) > 1e-3
    masks = [segmenter.segment(images, [[(4.0, 4.0, 260.0, 380.0)]])[0][0].mask for segmenter in (mine, theirs)]
    assert np.mean(masks[0] != masks[1]) < 1e-3

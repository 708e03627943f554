"""Published architectures at full size with random weights: paths, grids, a whole shard, parity (`make check-full`)."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gazetteer.diffusion.blocks import Block, describe
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.segment.sam import scale_boxes
from tests.labeling.detect.test_original_grounding_dino import call, clamp_as_transformers
from tests.support.models import published_models as published
from tests.support.models.full_size import CONCEPTS, WORDS, rehearse
from tests.support.models.original_models import pictures

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
    found = rehearse(tmp_path, pictures=1, steps=3, threads=1)
    print(json.dumps(found))
    run = tmp_path / "run"
    assert set(found["cpu_seconds"]) >= {"generate", "detect", "segment", "evidence", "reduce"}
    assert found["planned"]["counts"]["denoiser_evaluations"] == 6
    assert (found["planned"]["sites"], found["planned"]["features"]) == (18, 18 * 5120)
    assert min(found["planned_tflop"].values()) > 0.1, "counted from the configurations of the published formats"
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


def test_grounding_dino_gives_the_same_through_both_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From pictures of 512 px, which both scale to 800 px, to the logits and boxes of all 900 queries.

    The scores by which 900 of 13,294 proposals are chosen agree within 1e-4; the second network then goes by those of
    the first. Random weights put some neighbours closer together than single precision tells apart, and a query is
    given its embedding by its rank, so that two that change places are two other queries.
    """
    folder = published.write_grounding_dino(tmp_path / "grounding-dino-tiny", WORDS)
    text = published.write_bert(tmp_path / "bert-base-uncased", WORDS)
    file = published.write_original_grounding_dino(folder, tmp_path / "original")
    images, asked = pictures(2, 512, 512), [CONCEPTS[:3], CONCEPTS[2:]]
    left = load_detector(DetectorConfig(path=str(folder)))
    scores: list[torch.Tensor] = []
    left.model.model.encoder_output_class_embed.register_forward_hook(lambda *given: scores.append(given[-1]))
    mine = call(left, images, asked)
    proposals = scores[0]  # the second time, the chosen ones are scored
    assert proposals.shape[:2] == (2, 100**2 + 50**2 + 25**2 + 13**2)
    del left
    gc.collect()
    clamp_as_transformers(monkeypatch)
    settings = {"config": str(file.parent / "GroundingDINO_SwinT_OGC.py"), "text_encoder": str(text)}
    right = load_detector(DetectorConfig(path=str(file), library="groundingdino", **settings))
    right.model.transformer.enc_out_class_embed.register_forward_hook(lambda *given: same(given[-1], proposals))
    theirs = call(right, images, asked)
    for (logits, boxes), (other_logits, other_boxes) in zip(mine, theirs, strict=True):
        assert boxes.shape == (900, 4)
        assert float(boxes.std()) > 1e-2 and float(logits.std()) > 1e-2
        torch.testing.assert_close(logits, other_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(boxes, other_boxes, atol=1e-4, rtol=0)


def same(other: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """`scores`, with which those of the other library agree."""
    torch.testing.assert_close(other, scores, atol=1e-4, rtol=1e-4)
    return scores


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
        pixels, originals, resized = mine._pixels(images)
        left, right = mine._embed(pixels), theirs._embed(theirs._pixels(images)[0])
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

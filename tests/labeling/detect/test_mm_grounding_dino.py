"""MM Grounding DINO goes the same way as Grounding DINO: a small one with random weights, from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from tests.labeling.detect.test_detectors import ASKED, pictures
from tests.labeling.detect.test_phrases import make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        BertConfig,
        GroundingDinoImageProcessor,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
        SwinConfig,
    )

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4, out_indices=[2, 3]
    )
    bert = BertConfig(
        vocab_size=1030, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    config = MMGroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=32, num_queries=12, num_feature_levels=2, encoder_layers=1,
        encoder_ffn_dim=32, encoder_attention_heads=4, decoder_layers=2, decoder_ffn_dim=32,
        decoder_attention_heads=4, max_text_len=12,
    )  # fmt: skip
    model = MMGroundingDinoForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2)
    path = tmp_path_factory.mktemp("mm")
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(path)
    return path


def test_detections_are_of_what_was_asked_and_do_not_depend_on_the_batch(folder: Path) -> None:
    detector = load_detector(DetectorConfig(path=str(folder), box_threshold=0.001))
    assert type(detector.model).__name__ == "MMGroundingDinoForObjectDetection"  # type: ignore[attr-defined]
    together = detector.detect(pictures(), ASKED)
    assert [len(one) > 0 for one in together] == [True, True, False, True]
    for picture, asked, found in zip(pictures(), ASKED, together, strict=True):
        assert {d.concept for d in found} <= set(asked)
        assert all(0 <= d.box[0] < d.box[2] <= picture.shape[1] for d in found)
    alone = [detector.detect([p], [a])[0] for p, a in zip(pictures(), ASKED, strict=True)]
    assert alone == together
    loose = load_detector(DetectorConfig(path=str(folder), box_threshold=0.001, exact=False))
    square = [p for p in pictures() if p.shape == (64, 64, 3)]
    for left, right in zip(detector.detect(square, ASKED[:2]), loose.detect(square, ASKED[:2]), strict=True):
        np.testing.assert_allclose([d.score for d in left], [d.score for d in right], atol=2e-4)

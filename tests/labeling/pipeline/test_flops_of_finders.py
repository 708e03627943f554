"""Operations of the finders beside Grounding DINO and SAM, counted as they run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.pipeline.flops import caption_tokens, detector_flops, segmenter_flops
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig
from tests.support.models.finders import tiny_edgetam, tiny_omdet, tiny_sam3, tiny_sam_hq

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(("make", "captions"), [(tiny_sam3, 3), (tiny_omdet, 2)])
def test_a_detectors_operations(tmp_path: Path, make, captions: int) -> None:
    config = DetectorConfig(path=make(tmp_path), box_threshold=0.9)
    groups = [["cat", "dog"], ["sky"]]
    tokens = caption_tokens(config, groups)
    assert len(tokens) == captions
    made, counted = load_detector(config), detector_flops(config, 64, 64, tokens[:1])
    made.detect([PICTURE], [["cat"]])  # texts are embedded once a run and not counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made.detect([PICTURE], [["cat"]])
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.12)
    assert detector_flops(config, 64, 64, tokens) > counted


@pytest.mark.parametrize("make", [tiny_sam_hq, tiny_edgetam])
def test_a_segmenters_operations(tmp_path: Path, make) -> None:
    config = SegmenterConfig(path=make(tmp_path))
    made = load_segmenter(config)
    assert made is not None
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made.segment([PICTURE], [[(2, 2, 40, 40)]])
    assert sum(segmenter_flops(config, 1)) == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert segmenter_flops(SegmenterConfig(), 5) == (0, 0)

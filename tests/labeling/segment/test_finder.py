"""Finders: phrases in, segments out, from one model or from two; and the segmenters beside SAM and SAM 2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.operate.plan import plan
from gazetteer.jobs.operate.rates import Rates
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.pipeline.checks import check_inputs
from gazetteer.labeling.segment.finder import ModelFinder, cut_out, load_finder
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Box, Segmenter, SegmenterConfig
from tests.labeling.detect.test_sam3 import pictures
from tests.support.models.finders import tiny_edgetam, tiny_omdet, tiny_sam3, tiny_sam_hq

BOXES: list[list[Box]] = [[(3, 4, 40, 50), (10, 10, 30, 30)], [(2, 2, 30, 60)], [], [(0, 0, 96, 48)]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    makers = {"sam3": tiny_sam3, "omdet": tiny_omdet, "sam_hq": tiny_sam_hq, "edgetam": tiny_edgetam}
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in makers.items()}


def segmenter(path: str, **changes: object) -> Segmenter:
    found = load_segmenter(SegmenterConfig(path=path, **changes))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_one_model_and_two_go_by_one_protocol(folders: dict[str, str]) -> None:
    asked = [["cat"], ["sky", "dog"]]
    alone = load_finder(DetectorConfig(path=folders["sam3"], box_threshold=0.05), SegmenterConfig())
    cutting = SegmenterConfig(path=folders["sam_hq"])
    pair = load_finder(DetectorConfig(path=folders["omdet"], box_threshold=0.05), cutting)
    both = load_finder(DetectorConfig(path=folders["sam3"], box_threshold=0.05), cutting)
    for finder in (alone, pair, both):
        assert isinstance(finder, ModelFinder)
        found = finder.find(pictures()[:2], asked)
        for picture, words, segments in zip(pictures(), asked, found, strict=False):
            assert segments
            assert {one.concept for one in segments} <= set(words)
            assert all(one.mask.shape == picture.shape[:2] and one.mask.any() for one in segments)
            assert [one.score for one in segments] == sorted((one.score for one in segments), reverse=True)
    assert alone.segmenter is None
    assert [one.predicted_iou for one in alone.find(pictures()[:1], [["cat"]])[0]] == [
        one.score for one in alone.find(pictures()[:1], [["cat"]])[0]
    ]


def test_boxes_without_a_segmenter_get_a_sentence(folders: dict[str, str]) -> None:
    finder = load_finder(DetectorConfig(path=folders["omdet"], box_threshold=0.05), SegmenterConfig())
    with pytest.raises(InputError, match=r"segmenter.path names no model, and the detector gives boxes only"):
        finder.find(pictures()[:1], [["cat"]])
    assert cut_out(None, pictures()[:1], [[]]) == [[]]


@pytest.mark.parametrize("name", ["sam_hq", "edgetam"])
def test_masks_do_not_depend_on_the_batch(folders: dict[str, str], name: str) -> None:
    made = segmenter(folders[name]).segment(pictures(), BOXES)
    assert [len(one) for one in made] == [2, 1, 0, 1]
    for picture, masks in zip(pictures(), made, strict=True):
        assert all(one.mask.shape == picture.shape[:2] for one in masks)
    for picture, boxes, masks in zip(pictures(), BOXES, made, strict=True):
        (alone,) = segmenter(folders[name], boxes_per_call=1).segment([picture], [boxes])
        for one, other in zip(alone, masks, strict=True):
            assert np.mean(one.mask != other.mask) < 0.01
            assert abs(one.predicted_iou - other.predicted_iou) < 1e-3


@torch.inference_mode()
def test_sam_hq_cuts_out_what_its_library_does(folders: dict[str, str]) -> None:
    from transformers import SamHQProcessor

    made, image, boxes = segmenter(folders["sam_hq"]), pictures()[1], BOXES[1]
    processor = SamHQProcessor(made.images)  # type: ignore[attr-defined]
    inputs = processor(images=image, input_boxes=[[list(map(float, box)) for box in boxes]], return_tensors="pt")
    out = made.model(**inputs, multimask_output=False)  # type: ignore[attr-defined]
    (own,) = processor.image_processor.post_process_masks(
        out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    (found,) = made.segment([image], [boxes])
    assert np.mean(found[0].mask != own[0, 0].numpy()) < 0.001
    assert abs(found[0].predicted_iou - float(out.iou_scores[0, 0, 0])) < 1e-3


WRONG = [
    ("detector", "sam_hq", "is a sam_hq model, which cuts out what is in a box and finds nothing itself: name it segm"),
    ("detector", "edgetam", "is a edgetam model, which cuts out what is in a box"),
    ("segmenter", "omdet", "is a omdet-turbo model, which finds things and gives boxes: name it detector.path"),
    (
        "segmenter",
        "sam3",
        "is a sam3 model, which finds what it cuts out: name it detector.path and leave segmenter.path",
    ),
]
ACCEPTED = {
    "detector": "accepts grounding-dino, mm-grounding-dino, owlv2",
    "segmenter": "accepts sam, sam2, sam_hq and",
}


@pytest.mark.parametrize(("role", "name", "says"), WRONG)
def test_a_model_in_the_place_of_the_other_is_refused_before_anything_is_loaded(
    folders: dict[str, str], role: str, name: str, says: str
) -> None:
    path, said = folders[name], rf"{says}.*; {role}\.library transformers {ACCEPTED[role]}"
    config = load_config(None, [f"{role}.path={path}"])
    for refused in (
        lambda: load_detector(config.detector) if role == "detector" else load_segmenter(config.segmenter),
        lambda: check_inputs(config.stages),
        lambda: plan(config, Rates()),
    ):
        with pytest.raises(InputError, match=said):
            refused()


def test_boxes_alone_and_masks_alone_are_told_apart_where_no_segmenter_is_named(folders: dict[str, str]) -> None:
    for name, says in (("sam_hq", "finds nothing itself"), ("omdet", "segmenter.path names no model")):
        with pytest.raises(InputError, match=says):
            check_inputs(load_config(None, [f"detector.path={folders[name]}", "segmenter.path="]).stages)

"""SAM 3 and OmDet-Turbo, small and with random weights: what they find is what their library finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.load import load_detector, segments
from gazetteer.labeling.detect.omdet import OmDetDetector
from gazetteer.labeling.detect.phrases import ScoredBoxes, suppress
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig
from gazetteer.labeling.detect.sam3 import Sam3Detector
from gazetteer.labeling.detect.vocabulary_check import check_concepts
from tests.support.models.finders import tiny_omdet, tiny_sam3

ASKED = [["sky", "hot air balloon"], ["cat"], [], ["tree", "dog", "sky"]]


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (80, 48), (64, 64), (48, 96)]
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


@pytest.fixture(scope="module")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def omdet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_omdet(tmp_path_factory.mktemp("omdet"))


def rounded(one: Detection) -> tuple[str, float]:
    return one.concept, round(one.score, 3)


def as_sam3(path: str, **changes: object) -> Sam3Detector:
    found = load_detector(DetectorConfig(path=path, **{"box_threshold": 0.05, "nms_iou": 1.0, **changes}))  # type: ignore[arg-type]
    assert isinstance(found, Sam3Detector)
    return found


@torch.inference_mode()
def test_sam3_finds_and_cuts_out_what_its_library_does(sam3: str) -> None:
    """The library is asked one phrase with the picture; here a picture is looked at once, for all phrases."""
    made, image, asked = as_sam3(sam3), pictures()[1], ["cat", "dog"]
    (found,) = made.detect([image], [asked])
    pixels = made.images(images=[image], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    for concept in asked:
        text = made.tokenizer(concept, padding="max_length", max_length=32, return_tensors="pt")
        out = made.model(pixel_values=pixels, input_ids=text["input_ids"], attention_mask=text["attention_mask"])
        (own,) = made.images.post_process_instance_segmentation(out, threshold=0.05, target_sizes=[image.shape[:2]])
        mine = [one for one in found if one.concept == concept]
        order = own["scores"].argsort(descending=True)
        assert len(mine) == len(order) > 1
        for one, place in zip(mine, order.tolist(), strict=True):
            assert abs(one.score - float(own["scores"][place])) < 1e-4
            limits = torch.tensor([48, 80, 48, 80])
            near = own["boxes"][place].clamp(min=0).minimum(limits)
            torch.testing.assert_close(torch.tensor(one.box), near, atol=0.02, rtol=0)
            assert one.mask is not None
            assert np.mean(one.mask != own["masks"][place].numpy().astype(bool)) < 0.001


def test_what_else_is_asked_changes_nothing_and_neither_does_the_batch(sam3: str) -> None:
    together = as_sam3(sam3).detect(pictures(), ASKED)
    assert [len(one) > 0 for one in together] == [True, True, False, True]
    (alone,) = as_sam3(sam3).detect([pictures()[3]], [["dog"]])
    assert alone == [one for one in together[3] if one.concept == "dog"]
    batched = as_sam3(sam3, exact=False, phrases_per_call=2, batch_size=3).detect(pictures(), ASKED)
    for one, other in zip(together, batched, strict=True):
        assert sorted(map(rounded, one)) == sorted(map(rounded, other))
        assert {d.mask.shape for d in other if d.mask is not None} <= {p.shape[:2] for p in pictures()}


def test_nothing_found_is_no_segment(sam3: str) -> None:
    assert as_sam3(sam3, box_threshold=0.99).detect(pictures()[:2], ASKED[:2]) == [[], []]


def test_hundreds_of_boxes_in_one_picture_go_by_one_rule(sam3: str) -> None:
    """The rule is the one of every detector: a threshold, then the better of two boxes of one concept that overlap."""
    words = ["sky", "cat", "tree", "dog", "grass", "sea", "sand", "road", "mountain", "sun", "moon", "cloud", "house",
             "car", "boat", "hot air balloon", "dog car", "cat car", "sea boat", "sun moon"]  # fmt: skip
    image = pictures()[0]
    (every,) = as_sam3(sam3, box_threshold=0.0).detect([image], [words])
    assert len(every) > 200
    scored = ScoredBoxes(
        torch.tensor([one.score for one in every], dtype=torch.float64),
        torch.tensor([one.box for one in every], dtype=torch.float64),
        torch.tensor([words.index(one.concept) for one in every]),
    )
    kept = suppress(scored, 0.3)
    (few,) = as_sam3(sam3, box_threshold=0.0, nms_iou=0.3).detect([image], [words])
    assert [one.score for one in few] == kept.scores.tolist()
    assert len(few) < len(every)


def test_what_cannot_be_asked_gets_a_sentence(sam3: str, omdet: str) -> None:
    for path in (sam3, omdet):
        made = load_detector(DetectorConfig(path=path))
        with pytest.raises(InputError, match=r"takes \d+ tokens, the detector reads at most 32"):
            made.detect(pictures()[:1], [["a " * 40]])
        with pytest.raises(InputError, match="are the same words"):
            made.detect(pictures()[:1], [["sky", "Sky."]])
        with pytest.raises(InputError, match="4 pictures but 1 lists"):
            made.detect(pictures(), [["sky"]])
        with pytest.raises(InputError, match="has no word"):
            check_concepts(DetectorConfig(path=path), ["."])
    assert segments(DetectorConfig(path=sam3))
    assert not segments(DetectorConfig(path=omdet))


def as_omdet(path: str, **changes: object) -> OmDetDetector:
    found = load_detector(DetectorConfig(path=path, **{"box_threshold": 0.05, **changes}))  # type: ignore[arg-type]
    assert isinstance(found, OmDetDetector)
    return found


@torch.inference_mode()
def test_omdet_finds_what_its_own_processor_does(omdet: str) -> None:
    """A box may answer several phrases; of all pairs there are as many as queries."""
    from transformers import OmDetTurboProcessor

    made, image, asked = as_omdet(omdet, box_threshold=0.0, nms_iou=1.0), pictures()[3], ASKED[3]
    processor = OmDetTurboProcessor(made.images, made.tokenizer)
    inputs = processor(images=image, text=[asked], text_kwargs={"max_length": 32}, return_tensors="pt")
    (own,) = processor.post_process_grounded_object_detection(
        made.model(**inputs), [asked], threshold=0.0, nms_threshold=1.0, target_sizes=[image.shape[:2]]
    )
    rows = zip(own["labels"].tolist(), own["scores"].tolist(), own["boxes"].tolist(), strict=True)
    expected = sorted((asked[which], *box, score) for which, score, box in rows if box[2] > box[0] and box[3] > box[1])
    (found,) = made.detect([image], [asked])
    mine = sorted((one.concept, *one.box, one.score) for one in found)
    assert [row[0] for row in mine] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1:] for row in mine], [row[1:] for row in expected], atol=0.02)
    assert len({one.box for one in found}) < len(found) <= 12, "some box answers two phrases"


def test_omdet_does_not_depend_on_the_batch(omdet: str) -> None:
    together = as_omdet(omdet).detect(pictures(), ASKED)
    assert [len(one) > 0 for one in together] == [True, True, False, True]
    for picture, asked, found in zip(pictures(), ASKED, together, strict=True):
        assert {one.concept for one in found} <= set(asked)
        assert all(0 <= one.box[0] < one.box[2] <= picture.shape[1] for one in found)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    batched = as_omdet(omdet, exact=False).detect(pictures(), ASKED)
    assert [list(map(rounded, one)) for one in batched] == [list(map(rounded, one)) for one in together]


def test_a_detection_is_told_apart_by_its_box_not_its_mask() -> None:
    one = Detection("sky", 0.5, (0.0, 0.0, 1.0, 1.0), np.ones((2, 2), bool))
    assert one == Detection("sky", 0.5, (0.0, 0.0, 1.0, 1.0))
    assert "mask" not in repr(one)

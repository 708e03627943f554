"""The transformers Grounding DINO detector, on a small model with random weights."""

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from tests.labeling.detect.test_phrases import make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
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
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=32, num_queries=12, num_feature_levels=2, encoder_layers=1,
        encoder_ffn_dim=32, encoder_attention_heads=4, decoder_layers=2, decoder_ffn_dim=32,
        decoder_attention_heads=4, max_text_len=12,
    )  # fmt: skip
    model = GroundingDinoForObjectDetection(config)
    with torch.no_grad():  # random boxes, and logits of either sign
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2)
    path = tmp_path_factory.mktemp("detector")
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(path)
    return str(path)


def config(folder, **changes):
    return DetectorConfig(path=folder, **{"box_threshold": 0.02, "batch_size": 4, **changes})


def pictures():
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (80, 48), (64, 64), (48, 96)]
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


ASKED = [["sky", "hot air balloon"], ["cat"], [], ["tree", "dogs", "sky"]]


def test_detections_are_sorted_clipped_and_rounded(folder):
    found = load_detector(config(folder)).detect(pictures(), ASKED)
    assert [len(one) > 0 for one in found] == [True, True, False, True]
    for picture, asked, detections in zip(pictures(), ASKED, found, strict=True):
        height, width = picture.shape[:2]
        assert [d.score for d in detections] == sorted((d.score for d in detections), reverse=True)
        for detection in detections:
            assert detection.concept in asked
            x0, y0, x1, y1 = detection.box
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            assert 0.02 <= detection.score == round(detection.score, 4)
            assert all(side == round(side, 2) for side in detection.box)


def test_a_picture_gets_the_same_boxes_alone_and_in_any_batch(folder):
    together = load_detector(config(folder)).detect(pictures(), ASKED)
    for batch_size in (1, 3):
        assert load_detector(config(folder, batch_size=batch_size)).detect(pictures(), ASKED) == together
    detector = load_detector(config(folder))
    alone = [detector.detect([picture], [asked])[0] for picture, asked in zip(pictures(), ASKED, strict=True)]
    assert alone == together


def test_batched_calls_keep_every_picture_its_own_caption(folder):
    square = [picture for picture in pictures() if picture.shape == (64, 64, 3)] * 2
    asked = [["sky"], ["hot air balloon", "cat", "grass"], ["tree"], ["sky", "cat"]]
    exact = load_detector(config(folder, box_threshold=0.0)).detect(square, asked)
    batched = load_detector(config(folder, box_threshold=0.0, exact=False)).detect(square, asked)
    for left, right in zip(exact, batched, strict=True):
        assert [d.concept for d in left] == [d.concept for d in right]
        np.testing.assert_allclose([d.score for d in left], [d.score for d in right], atol=2e-4)
        np.testing.assert_allclose([d.box for d in left], [d.box for d in right], atol=0.03)


def test_scores_in_a_long_list_depend_on_nothing_else_in_it(folder):
    """Alone, in any list that is too long for one caption, in any order: the same boxes with the same scores."""
    detector = load_detector(config(folder, box_threshold=0.0, nms_iou=1.0))
    asked = ["sky", "grass", "cat", "hot air balloon", "tree", "dogs"]  # 17 tokens, the model reads 12

    def found(some):
        (detections,) = detector.detect(pictures()[:1], [some])
        return {concept: [one for one in detections if one.concept == concept] for concept in some}

    alone = {concept: found([concept])[concept] for concept in asked}
    assert all(alone.values())
    assert found(asked) == found(asked[::-1]) == alone
    assert found(asked[1:]) == {concept: alone[concept] for concept in asked[1:]}
    together = found(["sky", "cat"])  # these fit into one caption, where they are companions
    assert together["sky"] != alone["sky"]


def test_same_input_twice_gives_the_same_output(folder):
    detector = load_detector(config(folder))
    assert detector.detect(pictures(), ASKED) == detector.detect(pictures(), ASKED)


def test_no_pictures(folder):
    assert load_detector(config(folder)).detect([], []) == []


def test_lists_of_unequal_length_are_refused(folder):
    with pytest.raises(InputError, match="4 pictures but 1 lists"):
        load_detector(config(folder)).detect(pictures(), [["sky"]])


def test_wrong_paths_get_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_detector(DetectorConfig(path=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="could not be loaded"):
        load_detector(DetectorConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="is a bert model"):
        load_detector(DetectorConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "florence2"}')
    with pytest.raises(InputError, match="is a florence2 model, which gives boxes no score"):
        load_detector(DetectorConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("library", "yolo"), ("dtype", "int8"), ("box_threshold", 1.5), ("nms_iou", -0.1), ("batch_size", 0)],
)
def test_wrong_settings_get_a_sentence(field, value):
    with pytest.raises(InputError, match=f"detector.{field}"):
        DetectorConfig(path="x", **{field: value})


def test_an_unusable_device_gets_a_sentence(folder):
    with pytest.raises(InputError, match="cannot be used here"):
        load_detector(config(folder, device="nonsense"))


def test_out_of_memory_with_one_picture_names_what_to_try(folder):
    detector = load_detector(config(folder, exact=False))
    detector.images.pad_size = {"height": 2**26, "width": 2**26}
    with pytest.raises(GazetteerError, match=r"while detecting \(1 at once\); try detector.dtype=float16"):
        detector.detect(pictures(), ASKED)


def test_boxes_of_no_numbers_are_refused_instead_of_lost(folder):
    detector = load_detector(config(folder))
    with torch.no_grad():
        next(detector.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the detector gave values that are no numbers; detector\.dtype=bfloat16"):
        detector.detect(pictures(), ASKED)

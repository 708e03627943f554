"""The OWLv2 detector, on a small model with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.labeling.detect.captions import detect_in_captions
from gazetteer.labeling.detect.detector_features import backbone_features, has_backbone
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.owlv2 import Owlv2Detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.detect.vocabulary_check import OWLV2_QUERY
from gazetteer.labeling.pipeline.flops import caption_tokens, detector_flops

ASKED = [["sky", "hot air balloon"], ["cat"], [], ["tree", "dog", "sky"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2TextConfig,
        Owlv2VisionConfig,
    )

    from benchmarks.scenes.text_to_image.tokens import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a photo of a hot air balloon", "sky cat tree dog"])
    text = Owlv2TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = Owlv2VisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = Owlv2Config(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    model = Owlv2ForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3)
    path = tmp_path_factory.mktemp("owlv2")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    Owlv2ImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return str(path)


def detector(folder: str, **changes: object) -> Owlv2Detector:
    found = load_detector(DetectorConfig(path=folder, **{"box_threshold": 0.2, **changes}))  # type: ignore[arg-type]
    assert isinstance(found, Owlv2Detector)
    return found


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (80, 48), (64, 64), (48, 96)]
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def test_the_scores_and_boxes_are_those_of_the_whole_model(folder: str) -> None:
    """Concepts are embedded once, by themselves; the library does text and picture in one call."""
    made, (image, asked) = detector(folder), (pictures()[1], ASKED[0])
    tokens = made.tokenizer(
        [OWLV2_QUERY.format(c) for c in asked], padding="max_length", max_length=16, return_tensors="pt"
    )
    pixels = made.images(images=[image], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.inference_mode():
        out = made.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
        whole = made.images.post_process_object_detection(out, threshold=0.0, target_sizes=[image.shape[:2]])[0]
    (found,) = detector(folder, box_threshold=0.0, nms_iou=1.0).detect([image], [asked])
    assert 0 < len(found) <= len(whole["scores"]) == 16
    height, width = image.shape[:2]
    limits = torch.tensor([width, height, width, height])
    for one in found:
        same = [
            i for i in range(16)
            if asked[int(whole["labels"][i])] == one.concept and abs(float(whole["scores"][i]) - one.score) < 2e-4
            and torch.allclose(whole["boxes"][i].clamp(min=0).minimum(limits), torch.tensor(one.box), atol=0.02)
        ]  # fmt: skip
        assert same, one


def test_a_score_does_not_depend_on_the_others_but_each_box_answers_its_best_phrase_alone(folder: str) -> None:
    """As the library reads it: asked with others, a phrase keeps those of its boxes that no other takes."""
    made = detector(folder, box_threshold=0.0, nms_iou=1.0)
    image, asked = pictures()[1], ["cat", "dog", "sky"]
    (together,) = made.detect([image], [asked])
    assert len({one.box for one in together}) == len(together)
    alone = {concept: made.detect([image], [[concept]])[0] for concept in asked}
    for concept in asked:
        kept = [one for one in together if one.concept == concept]
        assert all(one in alone[concept] for one in kept) and len(kept) < len(alone[concept])


def test_detections_are_sorted_clipped_and_do_not_depend_on_the_batch(folder: str) -> None:
    together = detector(folder).detect(pictures(), ASKED)
    assert [len(one) > 0 for one in together] == [True, True, False, True]
    for picture, asked, found in zip(pictures(), ASKED, together, strict=True):
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
        for one in found:
            assert one.concept in asked
            assert 0 <= one.box[0] < one.box[2] <= picture.shape[1]
            assert 0 <= one.box[1] < one.box[3] <= picture.shape[0]
    alone = [detector(folder).detect([p], [a])[0] for p, a in zip(pictures(), ASKED, strict=True)]
    assert alone == together
    batched = detector(folder, exact=False).detect(pictures(), ASKED)
    assert [[d.concept for d in found] for found in batched] == [[d.concept for d in found] for found in together]


def test_concepts_that_cannot_be_asked_get_a_sentence(folder: str) -> None:
    with pytest.raises(InputError, match=r"takes \d+ tokens, the detector reads at most 16"):
        detector(folder).detect(pictures()[:1], [["a very long phrase of very many different words indeed it is"]])
    with pytest.raises(InputError, match="has no word"):
        detector(folder).detect(pictures()[:1], [["."]])
    with pytest.raises(InputError, match="4 pictures but 1 lists"):
        detector(folder).detect(pictures(), [["sky"]])


def test_out_of_memory_with_one_picture_names_what_to_try(folder: str) -> None:
    made = detector(folder, exact=False, batch_size=4)
    made.images.size = {"height": 2**26, "width": 2**26}
    with pytest.raises(GazetteerError, match=r"while detecting \(1 at once\); try detector.dtype=float16"):
        made.detect(pictures(), ASKED)


def test_a_checkpoint_file_is_sent_to_its_library(folder: str) -> None:
    with pytest.raises(InputError, match=r"set detector\.library to groundingdino"):
        load_detector(DetectorConfig(path=str(Path(folder) / "model.safetensors")))


def test_its_operations_are_counted_as_they_run(folder: str) -> None:
    groups = [["hot air balloon"], ["cat"]]
    made, picture = detector(folder), pictures()[0]
    made.detect([picture], [[*groups[0], *groups[1]]])  # texts are embedded once a run and not counted
    with FlopCounterMode(display=False) as scaling:  # blurs before it makes a picture smaller
        made.images(images=[picture], return_tensors="pt", input_data_format="channels_last")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        detect_in_captions(made, [picture], [groups])
    tokens = caption_tokens(made.config, groups)
    assert len(tokens) == 2, "one call a group"
    counted = detector_flops(made.config, *picture.shape[:2], tokens)
    assert counted == counter.get_total_flops() - 2 * scaling.get_total_flops() > 0


def test_its_pictures_are_no_features_for_comparisons(folder: str) -> None:
    detector = load_detector(DetectorConfig(library="transformers", path=folder))
    assert isinstance(detector, Owlv2Detector) and not has_backbone(detector)
    with pytest.raises(InputError, match="read from a Grounding DINO of transformers alone"):
        backbone_features(detector)

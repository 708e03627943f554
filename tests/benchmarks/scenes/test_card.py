"""The card of the embedded models: every number of an evaluation finds its place."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scenes import evaluate
from benchmarks.scenes.evaluate import by_concept, kappa
from benchmarks.scenes.model_card import model_card
from benchmarks.scenes.quadrants import quadrants
from gazetteer.data.core.errors import InputError
from gazetteer.data.scenes.weights import MODELS
from gazetteer.data.scenes.world import CONCEPT_NAMES, STYLE_NAMES
from tests.support.system.running import ROOT


def results() -> dict[str, Any]:
    """What an evaluation gives, with a number of its own in every place that the card shows."""
    concepts, looks = dict.fromkeys(CONCEPT_NAMES, 0.111), {"plain": 0.222, **dict.fromkeys(STYLE_NAMES, 0.333)}
    found: dict[str, Any] = {
        "detector": {
            "precision": 0.901, "recall": 0.902, "false_alarms": 0.003, "scenes": 77,
            "precision_by_concept": concepts, "recall_by_concept": concepts,
        },
        "segmenter": {
            "mean_iou": 0.904, "small_mean_iou": None, "thin_mean_iou": 0.905, "instances": 88, "small": 0, "thin": 5,
            "mean_iou_by_concept": {**concepts, "dog": 0.444},
        },
        "autoencoder": {
            "scenes": 77, "error": 6.543, "found_again": 0.987, "error_by_style": looks, "found_again_by_style": looks,
        },
        "concept_classifier": {
            **{f"{name}_by_concept": concepts for name in ("precision", "recall", "agreement", "kappa")},
            "precision": 0.906, "recall": 0.907, "soft_precision": 0.908, "soft_recall": 0.909, "agreement": 0.911,
            "kappa": 0.912, "scenes": 77, "pictures": 66,
        },
        "text_to_image": {
            "counts_right": 0.813, "counts_right_by_concept": {"dog": 0.814}, "objects_found": 0.915,
            "objects_found_by_classifier": 0.935, "found_by_classifier_by_concept": {"dog": 0.937},
            "kid": [0.0123, 0.0101, 0.0145], "kid_of_scenes": [0.0, -0.0012, 0.0013],
            "styles_right": 0.916, "found_by_concept": {"dog": 0.917}, "right_by_style": looks, "pictures": 66,
        },
        "world": {
            "views": ["sky", "above"],
            "training": {
                "autoencoder": {"steps": 12345, "hours": 3.58, "seed": 0}, "saes": {"steps": 801, "seed": 5},
                "text_to_image": {"steps": 15001, "hours": 4.25, "seed": 1},
            },
        },
    }  # fmt: skip
    return found | {"by_concept": by_concept(found), "quadrants": quadrants(range(200))}


def test_numbers_of_a_concept_are_gathered_from_all_parts() -> None:
    dog = results()["by_concept"]["dog"]
    assert dog == {
        "detector_precision": 0.111, "detector_recall": 0.111, "mask_iou": 0.444, "found": 0.917,
        "found_by_classifier": 0.937, "counts_right": 0.814, "kappa": 0.111,
    }  # fmt: skip
    assert results()["by_concept"]["sky"]["counts_right"] is None


def test_the_card_shows_what_was_measured() -> None:
    card = model_card(results())
    for number in (
        "0.901",
        "0.902",
        "6.543",
        "0.987",
        "0.813",
        "0.915",
        "0.935",
        "0.916",
        "0.912",
        "0.0123 (0.0101 to 0.0145)",
    ):
        assert number in card
    assert "These models know sky, above;" in card and "none is a training caption" in card
    assert "| 12345, 3.580, 0 + 15001, 4.250, 1 |\n" in card and "| 801, –, 5 |\n" in card and "`SamModel`" in card
    found = results()
    rarest = min(found["quadrants"]["dog"].values())
    assert f"| dog | 0.111 | 0.111 | 0.444 | 0.917 | 0.937 | 0.814 | 0.111 | {rarest:.3f} |" in card
    assert "| sky | 0.111 | 0.111 | 0.111 | – | – | – | 0.111 | – |" in card
    assert "| –, 0.905 |" in card
    assert "| plain | 0.222 | 0.222 | 0.222 |" in card


def test_the_transformer_has_rows_and_columns_where_it_was_measured() -> None:
    found = results()
    card = model_card(with_transformer(found))
    assert "| its transformer | named objects found by the detector, by the concept classifier | 0.777, 0.935 |" in card
    assert "| `models/text_to_image_dit` |" in card and "| 9, 0.500, 0 |" in card and "scenes_dit_prompts" in card
    rarest = min(found["quadrants"]["dog"].values())
    assert f"| {rarest:.3f} | 0.888 | 0.937 |" in card
    assert "text_to_image_dit" not in model_card(found)


def with_transformer(found: dict[str, Any]) -> dict[str, Any]:
    second = {**found["text_to_image"], "objects_found": 0.777, "found_by_concept": {"dog": 0.888}}
    training = found["world"]["training"] | {"text_to_image_dit": {"steps": 9, "hours": 0.5, "seed": 0}}
    return found | {"text_to_image_dit": second, "world": found["world"] | {"training": training}}


def test_the_page_is_of_the_form_that_the_program_writes() -> None:
    """Its headings, tables and rows; the numbers are those of the models as they were measured."""
    page = (ROOT / "docs/results/scenes.md").read_text(encoding="utf-8")

    def form(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if line.startswith(("#", "|"))]
        return [line if line.startswith("#") else line.split("|")[1].strip() for line in lines]

    shipped = (MODELS / "text_to_image_dit" / "model_index.json").exists()
    assert form(page) == form(model_card(with_transformer(results()) if shipped else results()))


def test_agreement_beyond_chance_needs_both_answers() -> None:
    import numpy as np

    assert kappa(np.array([True, False, True, False]), np.array([True, False, True, False])) == 1.0
    assert kappa(np.array([True, True]), np.array([True, True])) is None


def test_a_world_is_judged_by_its_own_prompts_and_views_and_no_transformer_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, asked, seen = tmp_path / "models", list[str](), list[tuple[str, ...]]()
    for name in ("text_to_image_dit", "text_to_image"):
        (models / name).mkdir(parents=True)
        (models / name / "model_index.json").touch()
    said = {"views": ["sky"], "training": {}}
    (models / "world.json").write_text(json.dumps(said | {"others": {"text_to_image_dit": []}}))
    with pytest.raises(InputError, match="of other views"):
        evaluate.evaluate(1, 1, str(models))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "prompts.txt").write_text("a dog\n")

    def judged(config: Any, *_: object) -> argparse.Namespace:
        asked.append(f"{Path(config.model.path).name} {Path(config.prompts.path).parent.parent}")
        return argparse.Namespace(images=[])

    def likeness(config: Any, images: object, views: tuple[str, ...]) -> dict[str, Any]:
        seen.append(tuple(views))
        return {}

    def render(seed: int, views: tuple[str, ...]) -> None:
        seen.append(tuple(views))

    for name in ("detector", "segmenter", "autoencoder", "classifier", "picture"):
        monkeypatch.setattr(evaluate, f"{name}_quality", lambda *_: {"kappa": None})
    for name, value in (("judged", judged), ("render", render), ("likeness", likeness)):
        monkeypatch.setattr(evaluate, name, value)
    for name in ("by_concept", "quadrants"):
        monkeypatch.setattr(evaluate, name, lambda *_: {})
    monkeypatch.setattr("gazetteer.labeling.detect.load.load_detector", lambda _: None)
    assert "text_to_image_dit" not in evaluate.evaluate(1, 1, str(models))
    assert asked == [f"text_to_image {tmp_path}"] and set(seen) == {("sky",)}
    (models / "world.json").write_text(json.dumps(said))
    assert "text_to_image_dit" in evaluate.evaluate(1, 1, str(models))
    assert asked[1:] == [f"text_to_image {tmp_path}", f"text_to_image_dit {tmp_path}"]

"""The model card of the embedded models, written from what `benchmarks.scenes.evaluate` measured."""

from __future__ import annotations

from typing import Any

_HEAD = """# The Scenes world and its models

**On unseen scenes the detector has precision {precision} and recall {recall}, and masks from true boxes a mean IoU of {iou}; in generated pictures {found} of the objects that prompts name
are found, and {styles} have the style that was asked for.**

*Written by `python -m benchmarks.scenes.evaluate --card docs/results/scenes.md`; the numbers below are what that command measured.*

**Scenes** is a small painted world: pictures of 128 × 128 pixels drawn from a seed, with a caption, the exact visible mask of every instance, and a look. Sixteen concepts (stuff: sky, grass, sea, sand,
road, mountain; things: sun, moon, cloud, tree, house, car, boat, dog, flower, balloon), six styles (night, sunset, pencil sketch, watercolour, winter, neon) beside the plain look. Horizons, sizes and places
vary widely, so that a place alone does not give a concept away. A scene can also be painted from five **views** (`views=` of `sample_layout`, `render` and `prompt_pool`): a landscape, from above, a full sky,
a close-up, a hillside. These models know {views}; `make train-world` trains all anew, and `python -m benchmarks.scenes.adopt` lets those ship. All were trained from scratch on CPU cores; seeds below 10⁹ are for training, everything here is measured above.

| model | format | trained by | steps, hours, seed |
|---|---|---|---|
| `models/text_to_image` | `StableDiffusionPipeline`: CLIP text encoder, KL autoencoder (128² → 16²), U-Net with cross-attention on 16² and 8², v-prediction, DDIM | `python -m benchmarks.scenes.autoencoder.train`, `….text_to_image.latents`, `….text_to_image.train` | {trained[text_to_image]} |
| `models/detector` | transformers `GroundingDinoForObjectDetection`, the plain architecture at hidden size 256 | `python -m benchmarks.scenes.detector.train` | {trained[detector]} |
| `models/segmenter` | transformers `SamModel` | `python -m benchmarks.scenes.segmenter.train` | {trained[segmenter]} |
| `models/saes` | one folder a site: `config.json`, `model.safetensors` | `gazetteer sae train` | {trained[saes]} |
| `models/style_classifier` | `config.json`, `model.safetensors` | `python -m benchmarks.scenes.classifiers.styles` | {trained[style_classifier]} |
| `models/concept_classifier` | `config.json`, `model.safetensors` | `python -m benchmarks.scenes.classifiers.concepts` | {trained[concept_classifier]} |
"""  # noqa: E501

_HEAD_DIT = """| `models/text_to_image_dit` | `StableDiffusion3Pipeline`: two CLIP text encoders, the same autoencoder, a transformer of eight blocks on 8² tokens, flow matching | `python -m benchmarks.scenes.text_to_image_dit.train` | {trained[text_to_image_dit]} |
| `models/saes_dit` | one folder a site | `gazetteer sae train --config scenes-dit` | {trained[saes_dit]} |

The transformer has no T5, which diffusers must be told: `StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)`; `max_sequence_length=1` then draws three times as fast as 256 empty words do.
"""  # noqa: E501

_PICTURES = """## Pictures

Chosen by nobody: seeds 0 to 47 of each sheet, drawn by `python -m benchmarks.scenes.text_to_image.sheets`. Captions of scenes that no model has seen, in the order of their file; none is a training caption:

![48 pictures of captions of unseen scenes](../images/scenes_prompts.webp)

Every look (rows: night, sunset, pencil sketch, watercolour, winter, neon) with every concept (columns: sky, grass, sea, sand, road, mountain, sun, moon; then cloud, tree, house, car, boat, dog, flower, balloon):

![48 pictures: six looks of eight concepts](../images/scenes_looks_1.webp)

![48 pictures: six looks of the other eight](../images/scenes_looks_2.webp)
"""  # noqa: E501

_PICTURES_DIT = """The first of them again, same captions and seeds, by the transformer:

![48 pictures of captions of unseen scenes, by the transformer](../images/scenes_dit_prompts.webp)
"""

TRANSFORMER = "text_to_image_dit"
_MODELS = ("text_to_image", "detector", "segmenter", "saes", "style_classifier", "concept_classifier", TRANSFORMER,
           "saes_dit")  # fmt: skip


def model_card(results: dict[str, Any]) -> str:
    """The card as Markdown, from the result of `benchmarks.scenes.evaluate.evaluate`."""
    pictures = [_PICTURES, *([_PICTURES_DIT] if TRANSFORMER in results else [])]
    return "\n".join(
        [_head(results), *pictures, "## Measured\n", *_whole(results), *_concepts(results), *_looks(results)]
    )


def _head(results: dict[str, Any]) -> str:
    pictures, world = results["text_to_image"], results["world"]
    head = _HEAD + (_HEAD_DIT if TRANSFORMER in results else "")
    return head.format(
        views=", ".join(world["views"]) or "the plain landscape",
        trained={name: _trained(world["training"], name) for name in _MODELS},
        precision=_cell(results["detector"]["precision"]),
        recall=_cell(results["detector"]["recall"]),
        iou=_cell(results["segmenter"]["mean_iou"]),
        found=_cell(pictures["objects_found"]),
        styles=_cell(pictures["styles_right"]),
    )


def _trained(training: dict[str, dict[str, Any]], name: str) -> str:
    """Steps, hours and seed of a model; the autoencoder is a part of the text-to-image model, trained before it."""
    parts = ("autoencoder", name) if name == "text_to_image" else (name,)
    said = [training[part] for part in parts if part in training]
    keys = ("steps", "hours", "seed")
    return " + ".join(", ".join(_cell(figures.get(key)) for key in keys) for figures in said) or "–"


def _whole(results: dict[str, Any]) -> list[str]:
    """A row a measure of a model, each over everything it was measured on."""
    detector, segmenter, autoencoder = results["detector"], results["segmenter"], results["autoencoder"]
    classifier, pictures = results["concept_classifier"], results["text_to_image"]
    rows = [
        ("detector", "precision, recall at IoU 0.5", (detector["precision"], detector["recall"])),
        ("", "false alarms for absent words", (detector["false_alarms"],)),
        ("segmenter", f"mean IoU of {segmenter['instances']} masks from true boxes", (segmenter["mean_iou"],)),
        ("", f"under 300 pixels ({segmenter['small']}), a side under 10 ({segmenter['thin']})",
         (segmenter["small_mean_iou"], segmenter["thin_mean_iou"])),
        ("autoencoder", "mean absolute error, in steps of 255", (autoencoder["error"],)),
        ("", "of what the detector finds, found again", (autoencoder["found_again"],)),
        ("concept classifier", "precision, recall", (classifier["precision"], classifier["recall"])),
        ("", "the same after the autoencoder", (classifier["soft_precision"], classifier["soft_recall"])),
        ("", "generated pictures: agreement with the detector, Cohen's kappa",
         (classifier["agreement"], classifier["kappa"])),
        *_drawn("text-to-image", pictures),
        *(_drawn("its transformer", results[TRANSFORMER]) if TRANSFORMER in results else []),
    ]  # fmt: skip
    return [
        f"On {detector['scenes']} unseen scenes, all sixteen words asked of each, and on {pictures['pictures']} "
        "generated pictures of captions of such scenes, judged by detector and classifiers:\n",
        _table(
            ("model", "measure", ""), [(model, what, ", ".join(map(_cell, values))) for model, what, values in rows]
        ),
    ]


def _drawn(name: str, pictures: dict[str, Any]) -> list[tuple[str, str, tuple[Any, ...]]]:
    """Rows of a text-to-image model."""
    return [
        (name, "named objects found by the detector, by the concept classifier",
         (pictures["objects_found"], pictures["objects_found_by_classifier"])),
        ("", "numbers of things as asked, style as asked", (pictures["counts_right"], pictures["styles_right"])),
        ("", "KID beside unseen scenes, in the detector's backbone (95 %)", (_interval(pictures["kid"]),)),
        ("", "the same of further scenes, the floor", (_interval(pictures["kid_of_scenes"]),)),
    ]  # fmt: skip


def _concepts(results: dict[str, Any]) -> list[str]:
    names = (
        "detector_precision", "detector_recall", "mask_iou", "found", "found_by_classifier", "counts_right", "kappa",
    )  # fmt: skip
    head: tuple[str, ...] = (
        "concept", "detector precision", "recall", "mask IoU", "found when asked for", "by the classifier",
        "as many as asked", "kappa of the two", "rarest quadrant",
    )  # fmt: skip
    rarest = {concept: min(shares.values()) for concept, shares in results["quadrants"].items()}
    second = results.get(TRANSFORMER, {})
    columns = [second[f"{key}_by_concept"] for key in ("found", "found_by_classifier")] if second else []
    head += ("transformer: found", "by the classifier") if second else ()
    return [
        "By concept; kappa: agreement of detector and classifier; rarest quadrant: of the training layouts that hold "
        "the thing, the share with one of its kind there (`python -m benchmarks.scenes.quadrants`):\n",
        _table(
            head,
            [
                (concept, *(row[name] for name in names), rarest.get(concept), *(c.get(concept) for c in columns))
                for concept, row in results["by_concept"].items()
            ],
        ),
    ]


def _looks(results: dict[str, Any]) -> list[str]:
    autoencoder, right = results["autoencoder"], results["text_to_image"]["right_by_style"]
    return [
        "By look; right: the classifier reads the one that was asked for:\n",
        _table(
            ("look", "right", "autoencoder's error", "found again"),
            [
                (look, value, autoencoder["error_by_style"].get(look), autoencoder["found_again_by_style"].get(look))
                for look, value in sorted(right.items())
            ],
        ),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _interval(values: list[float]) -> str:
    """A small number with its interval."""
    value, low, high = values
    return f"{value:.4f} ({low:.4f} to {high:.4f})"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""The model card of the embedded models, written from what `benchmarks.scenes.evaluate` measured."""

from __future__ import annotations

from typing import Any

_HEAD = """# The Scenes world and its models

**On unseen scenes the detector has precision {precision} and recall {recall}, and masks from true boxes a mean IoU of {iou}; in generated pictures {found} of the objects that prompts name
are found, and {styles} have the style that was asked for.**

*Written by `python -m benchmarks.scenes.evaluate --card docs/results/scenes.md`; the numbers below are what that command measured.*

**Scenes** is a small painted world: pictures of 128 × 128 pixels drawn from a seed, with a caption, the exact visible mask of every instance, and a look. Sixteen concepts (stuff: sky, grass, sea, sand,
road, mountain; things: sun, moon, cloud, tree, house, car, boat, dog, flower, balloon), six styles (night, sunset, pencil sketch, watercolour, winter, neon) beside the plain look. Where things may be
follows natural rules, but horizons, sizes and places vary widely, so that a place alone does not give a concept away.

The models in the package were trained on the plain landscape. A scene can also be painted from five **views**: a landscape with a horizon, from above, a full sky, a close-up on plain ground, a hillside
(`views=` of `sample_layout`, `render` and `prompt_pool`). There, of the layouts that hold a thing, at least 15 % have one of its kind with its centre in each quadrant
(`python -m benchmarks.scenes.quadrants`); half of the pictures show a single thing, from a fiftieth to half of the picture. `make train-world` trains all models anew on all views, going on wherever it
was stopped (`--views none` of the scripts: the plain landscape).

All were trained from scratch on CPU cores; seeds below 10⁹ are for training, everything here is measured on seeds and prompts above.

| model | format | trained by |
|---|---|---|
| `models/text_to_image` | `StableDiffusionPipeline`: CLIP text encoder, KL autoencoder (128² → 16²), U-Net with cross-attention on 16² and 8², v-prediction, DDIM | `python -m benchmarks.scenes.autoencoder.train`, `….text_to_image.latents`, `….text_to_image.train` |
| `models/detector` | transformers `GroundingDinoForObjectDetection`, the plain architecture at hidden size 256 | `python -m benchmarks.scenes.detector.train` |
| `models/segmenter` | transformers `SamModel` | `python -m benchmarks.scenes.segmenter.train` |
| `models/saes` | one folder a site: `config.json`, `model.safetensors` | `gazetteer sae train` |
| `models/style_classifier` | `config.json`, `model.safetensors` | `python -m benchmarks.scenes.classifiers.styles` |
| `models/concept_classifier` | `config.json`, `model.safetensors` | `python -m benchmarks.scenes.classifiers.concepts` |
"""  # noqa: E501


_CLASSIFIER_COLUMNS = ("precision", "recall", "agreement", "kappa")


def model_card(results: dict[str, Any]) -> str:
    """The card as Markdown, from the result of `benchmarks.scenes.evaluate.evaluate`."""
    parts = [_head(results), "## Measured\n"]
    for section in (_boxes_and_masks, _reconstructions, _second_opinion, _pictures, _concepts, _looks):
        parts += section(results)
    return "\n".join(parts)


def _head(results: dict[str, Any]) -> str:
    pictures = results["text_to_image"]
    return _HEAD.format(
        precision=_cell(results["detector"]["precision"]),
        recall=_cell(results["detector"]["recall"]),
        iou=_cell(results["segmenter"]["mean_iou"]),
        found=_cell(pictures["objects_found"]),
        styles=_cell(pictures["styles_right"]),
    )


def _boxes_and_masks(results: dict[str, Any]) -> list[str]:
    detector, segmenter = results["detector"], results["segmenter"]
    return [
        f"Detector, on {detector['scenes']} unseen scenes with all sixteen words asked of each, boxes matched one to "
        "one at IoU 0.5:\n",
        _table(
            ("precision", "recall", "false alarms for absent words"),
            [(detector["precision"], detector["recall"], detector["false_alarms"])],
        ),
        f"Segmenter, masks from true boxes, mean IoU over {segmenter['instances']} instances; small: under 300 pixels "
        f"({segmenter['small']}), thin: a box side under 10 pixels ({segmenter['thin']}):\n",
        _table(
            ("all", "small", "thin"),
            [(segmenter["mean_iou"], segmenter["small_mean_iou"], segmenter["thin_mean_iou"])],
        ),
    ]


def _reconstructions(results: dict[str, Any]) -> list[str]:
    autoencoder = results["autoencoder"]
    again = autoencoder["found_again_by_style"]
    rows = [(look, error, again[look]) for look, error in autoencoder["error_by_style"].items()]
    return [
        f"Autoencoder, on the same {autoencoder['scenes']} scenes: mean absolute error in steps of 255, and what the "
        "detector finds in the reconstructions of what it finds in the originals:\n",
        _table(("look", "error", "found again"), [("all", autoencoder["error"], autoencoder["found_again"]), *rows]),
    ]


def _second_opinion(results: dict[str, Any]) -> list[str]:
    classifier = results["concept_classifier"]
    names = ("precision", "recall", "soft_precision", "soft_recall", "agreement", "kappa")
    head = (
        "precision", "recall", "precision, autoencoder", "recall, autoencoder", "agreement with the detector",
        "Cohen's kappa",
    )  # fmt: skip
    return [
        f"Concept classifier, a second opinion on what is shown: on the same {classifier['scenes']} scenes as painted "
        "and after a pass through the autoencoder, and beside the detector on "
        f"{classifier['pictures']} generated pictures; means over the sixteen concepts:\n",
        _table(head, [tuple(classifier[name] for name in names)]),
    ]


def _pictures(results: dict[str, Any]) -> list[str]:
    pictures = results["text_to_image"]
    return [
        f"Text-to-image, {pictures['pictures']} prompts of unseen seeds, judged by the detector and the style "
        "classifier:\n",
        _table(
            ("named objects found", "numbers of things as asked", "style as asked"),
            [(pictures["objects_found"], pictures["counts_right"], pictures["styles_right"])],
        ),
    ]


def _concepts(results: dict[str, Any]) -> list[str]:
    classifier, quadrants = results["concept_classifier"], results["quadrants"]
    names = ("detector_precision", "detector_recall", "mask_iou", "found", "counts_right")
    return [
        "By concept:\n",
        _table(
            (
                "concept",
                "detector precision",
                "detector recall",
                "mask IoU",
                "found when asked for",
                "as many as asked",
            ),
            [(concept, *(row[name] for name in names)) for concept, row in results["by_concept"].items()],
        ),
        "The concept classifier by concept:\n",
        _table(
            ("concept", "precision", "recall", "agreement with the detector", "Cohen's kappa"),
            [
                (concept, *(classifier[f"{name}_by_concept"][concept] for name in _CLASSIFIER_COLUMNS))
                for concept in classifier["recall_by_concept"]
            ],
        ),
        "Where things stand in layouts of training scenes: the share of those that hold a thing in which one of its "
        "kind has its centre in each quadrant:\n",
        _table(
            ("concept", *next(iter(quadrants.values()))),
            [(concept, *fractions.values()) for concept, fractions in quadrants.items()],
        ),
    ]


def _looks(results: dict[str, Any]) -> list[str]:
    return [
        "By style (share of generated pictures in which the classifier reads the look that was asked for):\n",
        _table(("look", "right"), list(results["text_to_image"]["right_by_style"].items())),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""Concepts become boxes: what a detector gives, and how one is configured (`labeling.detect.load` loads it).

detector = load_detector(DetectorConfig(path="IDEA-Research/grounding-dino-tiny"))
[[Detection(concept="dog", score=0.81, box=(12.0, 40.5, 96.2, 120.0)), ...]] = detector.detect([image], [["dog"]])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.precision import DTYPES, dtype_on
from gazetteer.data.core.settings import Count, Effect, Fraction, OneOf, device_setting, setting, settings

LIBRARIES = ("transformers", "groundingdino")
PUBLISHED_CONFIGS = ("GroundingDINO_SwinT_OGC", "GroundingDINO_SwinB_cfg")
"""What `DetectorConfig.config` knows by name."""


@dataclass(frozen=True)
class Detection:
    """One box: score in 0..1 (4 decimals), box xyxy in px of the original picture (2 decimals).

    mask: bool [H, W] of the picture, where the detector cuts out what it finds (SAM 3); else None.
    """

    concept: str
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


class Detector(Protocol):
    """Finds asked concepts in pictures."""

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Boxes per picture, best first.

        images: uint8 [H, W, 3] each, of any size. concepts: what to look for, per picture; an empty
        list gives no detections.

        Raises:
            InputError: a concept that cannot be asked (`tokens`), or two that are the same to the detector.
        """
        ...

    def tokens(self, concept: str) -> tuple[int, ...]:
        """What the detector reads of a concept: token ids, by which it tells concepts apart.

        Raises:
            InputError: the concept has no word, none that the tokenizer knows, or too many.
        """
        ...


@settings("detector")
class DetectorConfig:
    """Which detector, and how to use it."""

    path: str = setting(
        Effect.SEGMENTS,
        "A folder or hub id of a Grounding DINO, MM Grounding DINO (LLMDet among them), OWLv2, OmDet-Turbo or SAM 3 "
        "(`transformers`), or a checkpoint file in the authors' format (`groundingdino`).",
        path=True,
    )
    library: Annotated[str, OneOf(LIBRARIES)] = setting(
        Effect.SEGMENTS,
        "What loads it: `transformers`, or the authors' own package for checkpoint files of theirs.",
        default="transformers",
    )
    config: str = setting(
        Effect.SEGMENTS,
        "With `groundingdino`, the settings of the checkpoint: the name of a published configuration "
        "(default: GroundingDINO_SwinT_OGC), or a JSON or YAML file of the same keys.",
        default="",
        path=True,
        names=PUBLISHED_CONFIGS,
    )
    text_encoder: str = setting(
        Effect.SEGMENTS,
        "With `groundingdino`, folder or hub id of the BERT whose tokenizer and sizes the checkpoint uses; "
        "empty: the one its settings name.",
        default="",
        path=True,
    )
    box_threshold: Fraction = setting(
        Effect.SEGMENTS,
        "Lowest score of a phrase that becomes a box, 0..1; OWLv2's scores are lower, 0.1 to 0.2 suits it.",
        default=0.35,
    )
    nms_iou: Fraction = setting(
        Effect.SEGMENTS, "Of two boxes of one concept that overlap more than this, the better one stays.", default=0.7
    )
    device: str = device_setting(Effect.SEGMENTS, default="cpu")
    dtype: Annotated[str, OneOf(("", *DTYPES))] = setting(
        Effect.SEGMENTS,
        "Number type of its weights; empty: float16 on ``cuda``, elsewhere and with `groundingdino` float32.",
        default="",
    )
    batch_size: Count = setting(
        Effect.NOTHING, "Pictures per model call; half as many from where they do not fit into memory.", default=8
    )
    phrases_per_call: Count = setting(
        Effect.SEGMENTS,
        "With SAM 3, phrases that a picture is asked in one call: one by one, or many where there is memory for it.",
        default=16,
        late=True,
        last_bits=True,
    )
    exact: bool = setting(
        Effect.SEGMENTS,
        "On a CPU, one picture per call whatever the batch size: sums differ in the last bits between batch "
        "shapes, and a box at the threshold must not depend on its neighbours.",
        default=True,
        last_bits=True,
    )
    revision: str = setting(Effect.SEGMENTS, "Hub revision to pin, empty for the default.", default="")

    def __post_init__(self) -> None:
        device = "cpu" if self.library == "groundingdino" else self.device
        object.__setattr__(self, "dtype", dtype_on(device, self.dtype))

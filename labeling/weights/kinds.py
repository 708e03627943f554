"""Which kinds of models find things, and which cut them out, by transformers' names for them."""

from __future__ import annotations

from gazetteer.data.core.errors import InputError

SEGMENTING = ("sam3", "sam3_video", "sam3_lite_text")
"""Kinds of detectors that also cut out what they find; the published folders of SAM 3 hold its video model."""

KINDS = {
    "detector": ("grounding-dino", "mm-grounding-dino", "owlv2", "omdet-turbo", *SEGMENTING),
    "segmenter": ("sam", "sam2", "sam2_video", "sam_hq", "edgetam", "edgetam_video"),
}
ACCEPTED = {
    "detector": "grounding-dino, mm-grounding-dino, owlv2, omdet-turbo and sam3",
    "segmenter": "sam, sam2, sam_hq and edgetam",
}
"""By role what is loaded, and how a sentence lists it."""

_HINTS = {
    "detector": {
        **dict.fromkeys(
            KINDS["segmenter"], "cuts out what is in a box and finds nothing itself: name it segmenter.path"
        ),
        "florence2": "gives boxes no score and boxes every phrase, there or not",
    },
    "segmenter": {
        **dict.fromkeys(KINDS["detector"], "finds things and gives boxes: name it detector.path"),
        **dict.fromkeys(SEGMENTING, "finds what it cuts out: name it detector.path and leave segmenter.path empty"),
    },
}
"""What else a kind of model does, by the role in which it cannot be used."""


def require_kind(role: str, path: str, kind: str) -> str:
    """The kind of the model at a path; InputError where it is none that is used as a detector or segmenter, `role`."""
    if kind in KINDS[role]:
        return kind
    hint = f", which {_HINTS[role][kind]}" if kind in _HINTS[role] else ""
    raise InputError(f"{path} is a {kind} model{hint}; {role}.library transformers accepts {ACCEPTED[role]}.")

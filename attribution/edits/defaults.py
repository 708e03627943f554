"""What edits are made with, in one table: `attribute evaluate` tries and chooses by it, `attribute edit` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gazetteer.attribution.edits.method_names import FEATURES, MOST_STEPS, accepted, leader, takes_all
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.data.core.errors import InputError

POOL = 160
"""Prompts painted by the full evaluation; edits are made from as many others."""
EVALUATED: Mapping[str, Any] = {
    "model": "sha256:b54eb6d5c5feada9ae4c9ba81c761dad88998f9daddd91b704aa21db5463eca6",
    "model.attention_slicing": False, "model.config": "", "model.dtype": "float32", "model.revision": "",
    "model.scheduler": "", "model.variant": "",
    "generation.guidance": 6.0, "generation.height": 0, "generation.width": 0, "generation.steps": 16,
    "prompts": "a6059c1e617d910ee17f214a7d525e81ed75a8827e4f555daba04705fe77d999",
    "vocabulary.concepts": "3b5de475ed1bd453cc5e1932581d03e15729c594490406bab211c220e5c7877b",
    "seed": 0, "pool": POOL,
}  # fmt: skip
"""What doses were chosen on, the shipped configuration: all that decides an edit and the pictures of it.

Paths by the digest of what lies there (`gazetteer.data.core.digests.digest_path`), prompts and concepts as an edit's
provenance has them. Of 16 steps the evaluation took `MOST_STEPS`; a configuration of so few is the same to it.
"""
KINDS = ("objects", "styles", "areas")
"""What a concept is: a thing, the style of the whole picture, or what covers it (sky, sea), as evaluated apart."""


@dataclass(frozen=True)
class DoseOutcome:
    """What the full evaluation came to with a method at its dose: means over the concepts, of the reporting half.

    Attributes:
        of: the concepts, in words.
        target: to erase, what was left of them (found edited / intact); to amplify, of pictures in which the intact
            model missed them, the fraction that shows them.
        others: what was kept of all other concepts.
    """

    of: str
    target: float
    others: float


@dataclass(frozen=True)
class Dose:
    """How much of its scope a method takes.

    Attributes:
        taken: what the command takes.
        too_strong: whether even this one, the gentlest that was tried, did not keep the others.
        outcome: what came of it; None where the method was not evaluated for such concepts: the dose is then that of
            the nearest of kin.
    """

    taken: float
    too_strong: bool = False
    outcome: DoseOutcome | None = None

    @property
    def measured(self) -> bool:
        """Whether the full evaluation chose it for all concepts of the kind together (docs/results/attribution.md)."""
        return self.outcome is not None


_STEPS = (0.003, 0.01, 0.03, 0.1)
_ZEROED = (0.003, 0.01, 0.02, 0.05)
_FEATURES = (0.01, 0.03, 0.1)
_TRIED = {
    "steps": _STEPS, "steps_random": _STEPS, "cad": _ZEROED, "repaired": _ZEROED,
    "sae_ablate": _FEATURES, "sae_replace": _FEATURES, "sae_negative": (1.0, 4.0, 16.0),
}  # fmt: skip
_OTHERWISE = (0.01, 0.05)

DOSES: dict[tuple[str, str], dict[str, Dose]] = {
    ("erase", "objects"): {
        "steps": Dose(0.01), "cad": Dose(0.00033, too_strong=True), "published": Dose(0.01), "live": Dose(0.01),
        "contrast": Dose(0.01), "iterated": Dose(0.01), "repaired": Dose(0.00033),
        "sae_ablate": Dose(0.03), "sae_replace": Dose(0.0033), "sae_negative": Dose(0.11),
    },
    ("erase", "styles"): {
        "steps": Dose(0.003), "cad": Dose(0.00033, too_strong=True), "published": Dose(0.01),
        "live": Dose(0.01), "contrast": Dose(0.0033), "iterated": Dose(0.0033),
        "repaired": Dose(0.00033), "sae_ablate": Dose(0.03), "sae_replace": Dose(0.0011, too_strong=True),
        "sae_negative": Dose(0.11, too_strong=True),
    },
    ("erase", "areas"): {
        "steps": Dose(0.01), "cad": Dose(0.00033, too_strong=True), "published": Dose(0.01), "live": Dose(0.01),
        "contrast": Dose(0.01), "iterated": Dose(0.01), "repaired": Dose(0.00033), "sae_ablate": Dose(0.01),
        "sae_replace": Dose(0.0033), "sae_negative": Dose(0.11),
    },
    ("amplify", "objects"): {
        "steps": Dose(0.001), "cad": Dose(0.00033, too_strong=True), "contrast": Dose(0.0011),
        "iterated": Dose(0.0011),
    },
    ("amplify", "styles"): {
        "steps": Dose(0.001), "cad": Dose(0.00033), "contrast": Dose(0.0011),
        "iterated": Dose(0.0011),
    },
    ("amplify", "areas"): {
        "steps": Dose(0.001), "cad": Dose(0.00033), "contrast": Dose(0.0011), "iterated": Dose(0.0011),
    },
}  # fmt: skip
"""By goal and kind the dose of every method that chooses one itself; the others take that of their `leader`, or all.

Which of them the evaluation chose, and what came of them, `OUTCOMES` says."""

OUTCOMES: dict[tuple[str, str], tuple[str, dict[str, tuple[float, float]]]] = {
    ("erase", "objects"): ("ten objects", {
        "uce": (0.14, 1.01), "steps": (0.09, 0.92), "steps_random": (0.18, 0.99), "steps_all": (0.07, 0.87),
        "cad": (0.45, 0.87), "cad_random": (1.00, 1.00), "published": (0.46, 0.97), "random": (0.88, 0.99),
        "repaired": (0.59, 0.95), "sae_ablate": (0.72, 0.90), "sae_negative": (0.70, 0.88),
        "sae_replace": (0.95, 0.93),
    }),
    ("erase", "styles"): ("six looks", {
        "uce": (0.15, 1.07), "steps": (0.00, 0.89), "steps_random": (0.32, 0.98), "cad": (0.94, 0.87),
        "random": (1.00, 0.98), "repaired": (1.00, 0.97), "sae_ablate": (0.57, 0.86), "sae_negative": (0.49, 0.81),
        "sae_replace": (0.81, 0.90),
    }),
    ("erase", "areas"): ("six areas", {
        "uce": (0.74, 1.00), "steps": (0.65, 0.96), "steps_random": (0.69, 1.00), "cad": (0.68, 0.85),
        "random": (0.91, 0.97), "repaired": (0.88, 0.90), "sae_ablate": (0.85, 0.97), "sae_negative": (0.81, 0.88),
        "sae_replace": (0.93, 0.96),
    }),
    ("amplify", "objects"): ("13 concepts", {
        "cad": (0.28, 0.91), "cad_random": (0.05, 1.00), "steps": (0.49, 0.95), "steps_random": (0.49, 0.97),
        "steps_all": (0.62, 0.85), "random": (0.11, 0.98),
    }),
}  # fmt: skip
"""By goal and kind the concepts, and target and others (as of `DoseOutcome`) of every method evaluated on them; the
rows of docs/results/attribution.md. What is not here was not measured on the present model."""


def tried(method: str) -> tuple[float, ...]:
    """The doses of a method that the full evaluation tries, ascending.

    Where none keeps the others it tries a third and a ninth of the least beside them; what `dose` gives is one of all.

    Of the ways to erase through features see `gazetteer.attribution.features.erasing.FeatureErasers.erased`.
    """
    return _TRIED.get(method, _OTHERWISE)


def dose(goal: str, method: str, kind: str, reference: str = MethodConfig.reference) -> Dose:
    """The dose that a method takes where none is named.

    Args:
        kind: of the concept, one of `KINDS`.
        reference: as of `leader`, whose dose a follower takes.

    Raises:
        InputError: an unknown goal, method or kind.
    """
    if goal != "erase" or method not in FEATURES:
        accepted(goal, method)
    if kind not in KINDS:
        raise InputError(f"Unknown kind of concept {kind!r}; accepted: {', '.join(KINDS)}.")
    led_by = leader(method, reference)
    if takes_all(method):
        own = Dose(1.0)
    elif led_by:
        # That the leader's gentlest was too strong says nothing of a control that takes as much.
        own = Dose(DOSES[goal, kind][led_by].taken)
    else:
        own = DOSES[goal, kind][method]
    of, rows = OUTCOMES.get((goal, kind), ("", {}))
    if method not in rows or led_by != leader(method, MethodConfig.reference):
        return Dose(own.taken)  # of a method that was not evaluated not even that it is too strong is known
    return Dose(own.taken, own.too_strong, DoseOutcome(of, *rows[method]))


def unlike_evaluated(marks: Mapping[str, Any]) -> list[str]:
    """The keys, sorted, by which what an edit is made from differs from what doses were chosen on (`EVALUATED`)."""
    same = {**marks, "generation.steps": EVALUATED["generation.steps"]}
    ours = same if marks.get("generation.steps") == MOST_STEPS else marks
    return sorted(
        key for key in ours.keys() | EVALUATED.keys()
        if key not in ours or key not in EVALUATED or ours[key] != EVALUATED[key]
    )  # fmt: skip


def evaluated(steps: int, guidance: float, seed: int) -> MethodConfig:
    """How the full evaluation makes its edits.

    Args:
        steps, guidance, seed: of the run's own generation; more than `MOST_STEPS` sampler steps are not taken.
    """
    return MethodConfig(steps=min(MOST_STEPS, steps), guidance=guidance, seeds=2, context=16, seed=seed)

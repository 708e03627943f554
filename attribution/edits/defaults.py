"""What edits are made with, in one table: `attribute evaluate` tries and chooses by it, `attribute edit` takes it."""

from __future__ import annotations

from dataclasses import dataclass

from gazetteer.attribution.edits.method_names import FEATURES, accepted, leader, takes_all
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.data.core.errors import InputError

POOL = 160
"""Prompts painted by the full evaluation; edits are made from as many others."""
EVALUATED = ("sha256:8ddbacdaba667dcbded4fdd01d30b51f8d4a74defcd02fd44c9dddfa4cbb4c7d", 10, 4.0)
"""What doses were chosen on: the digest (`gazetteer.data.core.digests.digest_path`) of the text-to-image model, that of
the plain landscapes, embedded before; sampler steps; guidance."""
KINDS = ("objects", "styles")
"""What a concept is: a thing (or an area), or the style of the whole picture."""


@dataclass(frozen=True)
class Dose:
    """How much of its scope a method takes.

    Attributes:
        taken: what the command takes.
        measured: whether the full evaluation chose it for all concepts of the kind together
            (docs/results/attribution.md); else it is that of the nearest of kin.
    """

    taken: float
    measured: bool = True


_STEPS = (0.003, 0.01, 0.03, 0.1)
_ZEROED = (0.003, 0.01, 0.02, 0.05)
_FEATURES = (0.01, 0.03, 0.1)
_TRIED = {
    "steps": _STEPS, "steps_random": _STEPS, "cad": _ZEROED, "repaired": _ZEROED,
    "sae_ablate": _FEATURES, "sae_replace": _FEATURES, "sae_negative": (1.0, 4.0, 16.0),
}  # fmt: skip
_OTHERWISE = (0.01, 0.05)
_THROUGH_FEATURES = {
    "sae_ablate": Dose(0.03, False), "sae_replace": Dose(0.03, False), "sae_negative": Dose(4.0, False),
}  # fmt: skip

DOSES: dict[tuple[str, str], dict[str, Dose]] = {
    ("erase", "objects"): {
        "steps": Dose(0.1), "cad": Dose(0.05), "published": Dose(0.05, False), "live": Dose(0.01, False),
        "contrast": Dose(0.05, False), "iterated": Dose(0.01, False), "repaired": Dose(0.05, False),
        **_THROUGH_FEATURES,
    },
    ("erase", "styles"): {
        "steps": Dose(0.01), "cad": Dose(0.02), "published": Dose(0.01, False), "live": Dose(0.01, False),
        "contrast": Dose(0.01, False), "iterated": Dose(0.01, False), "repaired": Dose(0.02, False),
        **_THROUGH_FEATURES,
    },
    ("amplify", "objects"): {
        "steps": Dose(0.003), "cad": Dose(0.02), "contrast": Dose(0.01, False), "iterated": Dose(0.01, False),
    },
    ("amplify", "styles"): {
        "steps": Dose(0.003, False), "cad": Dose(0.02, False), "contrast": Dose(0.01, False),
        "iterated": Dose(0.01, False),
    },
}  # fmt: skip
"""By goal and kind the dose of every method that chooses one itself; the others take that of their `leader`, or all."""


def tried(method: str) -> tuple[float, ...]:
    """The doses of a method that the full evaluation tries, ascending; what `dose` gives is among them.

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
    if takes_all(method):
        return Dose(1.0)
    return DOSES[goal, kind][leader(method, reference) or method]


def evaluated(steps: int, guidance: float, seed: int) -> MethodConfig:
    """How the full evaluation makes its edits.

    Args:
        steps, guidance, seed: of the run's own generation; more than 10 sampler steps are not taken.
    """
    return MethodConfig(steps=min(10, steps), guidance=guidance, seeds=2, context=16, seed=seed)

"""What edits are made with, in one table: `attribute evaluate` tries and chooses by it, `attribute edit` takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gazetteer.attribution.edits.method_names import FEATURES, accepted, leader, takes_all
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.data.core.errors import InputError

POOL = 160
"""Prompts painted by the full evaluation; edits are made from as many others."""
EVALUATED = ("sha256:b54eb6d5c5feada9ae4c9ba81c761dad88998f9daddd91b704aa21db5463eca6", 10, 6.0)
"""What doses were chosen on: the digest (`gazetteer.data.core.digests.digest_path`) of the embedded text-to-image
model; sampler steps; guidance."""
KINDS = ("objects", "styles")
"""What a concept is: a thing (or an area), or the style of the whole picture."""


@dataclass(frozen=True)
class Dose:
    """How much of its scope a method takes.

    Attributes:
        taken: what the command takes.
        measured: whether the full evaluation chose it for all concepts of the kind together
            (docs/results/attribution.md); else it is that of the nearest of kin.
        too_strong: whether even this one, the gentlest that was tried, did not keep the others.
    """

    taken: float
    measured: bool = True
    too_strong: bool = False


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
        "steps": Dose(0.01), "cad": Dose(0.00033, too_strong=True), "published": Dose(0.01), "live": Dose(0.01, False),
        "contrast": Dose(0.01, False), "iterated": Dose(0.01, False), "repaired": Dose(0.00033),
        "sae_ablate": Dose(0.03), "sae_replace": Dose(0.0033), "sae_negative": Dose(0.11),
    },
    ("erase", "styles"): {
        "steps": Dose(0.003), "cad": Dose(0.00033, too_strong=True), "published": Dose(0.01, False),
        "live": Dose(0.01, False), "contrast": Dose(0.0033, False), "iterated": Dose(0.0033, False),
        "repaired": Dose(0.00033), "sae_ablate": Dose(0.03), "sae_replace": Dose(0.0011, too_strong=True),
        "sae_negative": Dose(0.11, too_strong=True),
    },
    ("amplify", "objects"): {
        "steps": Dose(0.001), "cad": Dose(0.00033, too_strong=True), "contrast": Dose(0.0011, False),
        "iterated": Dose(0.0011, False),
    },
    ("amplify", "styles"): {
        "steps": Dose(0.001, False), "cad": Dose(0.00033, False), "contrast": Dose(0.0011, False),
        "iterated": Dose(0.0011, False),
    },
}  # fmt: skip
"""By goal and kind the dose of every method that chooses one itself; the others take that of their `leader`, or all."""


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
    if takes_all(method):
        return Dose(1.0)
    led_by = leader(method, reference)
    # That the leader's gentlest was too strong says nothing of a control that takes as much.
    return replace(DOSES[goal, kind][led_by], too_strong=False) if led_by else DOSES[goal, kind][method]


def evaluated(steps: int, guidance: float, seed: int) -> MethodConfig:
    """How the full evaluation makes its edits.

    Args:
        steps, guidance, seed: of the run's own generation; more than 10 sampler steps are not taken.
    """
    return MethodConfig(steps=min(10, steps), guidance=guidance, seeds=2, context=16, seed=seed)

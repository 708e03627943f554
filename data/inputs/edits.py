"""Edits at rest: what to change in a generation, as plain, validated, hashable data that JSON and YAML can hold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import BRANCHES, IMAGE, SIGNALS, STREAMS, Site
from gazetteer.data.inputs.plain_values import check_choice, make_floats
from gazetteer.data.inputs.regions import Region

STAGES: dict[str, tuple[float, float]] = {"early": (0.6, 1.0), "middle": (0.2, 0.6), "final": (0.0, 0.2)}
"""Windows of t by name (P1 section 3.5): with 50 sampler steps they hold 20, 20 and 10 of them."""

WINDOWS: dict[str, tuple[float, float]] = {**STAGES, "early and middle": (0.2, 1.0)}
"""Windows that features are switched in and edits are tried in, by name."""

UNITS: dict[str, str] = {
    "absolute": "β times the sum of the feature vectors",
    "code_norm": "β·‖Z[i,j]‖: the norm of the cell's code (arXiv 2504.15473, equation 2)",
    "code_norm_share": "β·‖Z[i,j]‖ / Σ‖Z‖: the cell's share of the code (arXiv 2504.15473, equation 3)",
    "update_norm": "the change is β times as long as the block's update in the cell, ‖Δ[i,j]‖",
    "feature_p99": "β times each feature's own 99th percentile, where it fires",
    "code": "β·Z[i,j]: β times each feature's own activation in the cell; -1 switches it off",
}
"""Units of an edit's strength β, and what each means."""

USUAL_STRENGTH: dict[str, float] = {**dict.fromkeys(UNITS, 1.0), "update_norm": 0.2}
"""β by unit where none is said. A block's whole update once more is noise on top of the picture; a fifth of it places
things as often and keeps the rest (docs/results/steering.md)."""

CHOICES = ("labels", "contrast", "dictionary")
OUTSIDES = ("remove", "subtract", "keep")

SAE_UNITS = ("code_norm", "code_norm_share", "feature_p99", "code")
UNWEIGHTED = ("feature_p99", "code")
CONTRAST_UNHEARD = (
    "feature_p99 and code count features by their own strength and hear no weights of the choice contrast"
)

_UNSAID = float("nan")
"""This very object as a strength: the usual one of the unit. Any other NaN is refused."""


@dataclass(frozen=True)
class Target:
    """What is added in one block: features of the autoencoder of a site, or a plain direction.

    Attributes:
        block: the module of the denoiser whose output is changed.
        branch, t, stream, signal: with `features`, the rest of their site.
        features: indices of the autoencoder's features; their vectors are added up.
        scales: how much of each of them goes into the sum, 1 each when empty (of vectors at unit length with the unit
            ``update_norm``); with the unit ``feature_p99`` their percentiles. The unit ``code`` has no use for them.
        vector: a direction of the block's width instead of features.
    """

    block: str
    branch: str = "cond"
    t: float = 0.5
    features: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    vector: tuple[float, ...] = ()
    stream: str = STREAMS[0]
    signal: str = SIGNALS[0]

    def __post_init__(self) -> None:
        Site(self.block, self.branch, self.t, self.stream, self.signal)
        make_floats(self, "t", "scales", "vector")
        if bool(self.features) == bool(self.vector):
            raise InputError(f"The target at {self.block} needs either features or a vector.")
        if any(f < 0 for f in self.features) or len(set(self.features)) != len(self.features):
            raise InputError(f"The target at {self.block}: features must be different numbers of at least 0.")
        if self.scales and len(self.scales) != len(self.features):
            raise InputError(
                f"The target at {self.block}: {len(self.scales)} scales for {len(self.features)} features."
            )
        if not all(math.isfinite(v) for v in (*self.vector, *self.scales)) or (self.vector and not any(self.vector)):
            raise InputError(f"The target at {self.block}: a vector must be finite and not zero.")

    @property
    def site(self) -> Site:
        """Where the autoencoder of the features listens."""
        return Site(self.block, self.branch, self.t, self.stream, self.signal)


@dataclass(frozen=True)
class Edit:
    """One change to a generation.

    Attributes:
        concept: what to add, by where it is in a run's pictures or by its labels (`choice`);
            `gazetteer.labeling.interventions.resolve.resolve` turns it into targets.
        word: what to add, by the prompts that contain the word (for styles, which are no segments); resolved likewise.
        targets: the features or directions themselves.
        region: where; everywhere makes the edit global.
        outside: of the region: ``remove`` takes the features away (Z·f; in the unit ``update_norm`` by their scales,
            the largest wholly), ``subtract`` takes away half of what is added inside, whether they fire or not (with a
            negative strength: adds half of what is taken inside), ``keep`` changes nothing; empty: ``remove``, and
            ``keep`` with a negative strength, which takes away inside alone.
        window: low, high: acts at the sampler steps with low < t ≤ high, and at t = 0 when low is 0.
        branch: ``cond``, ``uncond``, or ``both``: the change of the cond half, subtracted from the uncond half (in the
            image stream alone: the halves hold other words).
        blocks: for `concept` and `word`, in which blocks; empty: all that are labelled.
        t: for `concept` and `word`, of the autoencoders whose features are added, at every step of the window; None:
            nearest to the window's middle. Halfway, features have more names than at the first step, and work there.
        choice: for `concept` and `word`, which features are added, and how much of each: one of CHOICES
            (`dictionary` is of a concept only); empty: ``contrast`` for a concept, ``labels`` for a word.
        strength: β; 0 is no edit at all, a negative one takes away; unsaid: USUAL_STRENGTH of the unit.
        unit: one of UNITS.
        images: places in the batch, from 0; empty: every picture.
    """

    concept: str = ""
    word: str = ""
    targets: tuple[Target, ...] = ()
    region: Region = field(default_factory=Region)
    outside: str = ""
    window: tuple[float, ...] = STAGES["early"]
    branch: str = "cond"
    blocks: tuple[str, ...] = ()
    t: float | None = 0.5
    choice: str = ""
    strength: float = _UNSAID
    unit: str = "update_norm"
    images: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, tuple(UNITS))
        if self.strength is _UNSAID:
            object.__setattr__(self, "strength", USUAL_STRENGTH[self.unit])
        make_floats(self, "strength", "window", "t")
        if bool(self.concept) + bool(self.word) > 1 or not (self.concept or self.word or self.targets):
            raise InputError("An edit needs a concept, a word or targets.")
        check_choice("branch", self.branch, (*BRANCHES, "both"))
        if not self.choice:
            object.__setattr__(self, "choice", "contrast" if self.concept else "labels")
        check_choice("choice", self.choice, CHOICES)
        if self.choice == "dictionary" and self.word:
            raise InputError("The choice dictionary needs a concept; a word of prompts stands in no dictionary.")
        if self.t is not None and not 0.0 <= self.t <= 1.0:
            raise InputError(f"An edit's t lies in 0 … 1, not {self.t}.")
        if not self.outside:
            object.__setattr__(self, "outside", "keep" if self.strength < 0.0 else "remove")
        check_choice("outside", self.outside, OUTSIDES)
        if self.outside == "remove" and self.strength < 0.0 and not self.region.everywhere:
            raise InputError(
                "A negative strength takes away inside the region, and outside: remove takes away everywhere else; say "
                "outside: keep, or leave the region out to take away everywhere."
            )
        if self.unit == "code" and self.outside == "subtract" and not self.region.everywhere:
            raise InputError("The unit code adds what fires in a cell: nothing to subtract elsewhere; say remove.")
        if not math.isfinite(self.strength):
            raise InputError(f"An edit's strength must be a finite number, not {self.strength}.")
        if len(self.window) != 2 or not 0.0 <= self.window[0] < self.window[1] <= 1.0:
            raise InputError(f"An edit's window is low, high with 0 ≤ low < high ≤ 1, not {list(self.window)}.")
        if any(i < 0 for i in self.images):
            raise InputError("An edit's images are places in the batch, from 0.")
        for target in self.targets:
            if target.stream != IMAGE and not self.region.everywhere:
                raise InputError(
                    f"The edit of {self.name!r} has a region, but the {target.stream} stream of {target.block} holds "
                    "words, which lie nowhere in the picture; leave out the region."
                )
            if target.stream != IMAGE and self.branch == "both":
                raise InputError(
                    f"The edit of {self.name!r} acts on both branches, but the {target.stream} stream of "
                    f"{target.block} holds other words in each; say branch: cond."
                )
            if target.vector and self.unit in SAE_UNITS:
                raise InputError(f"The unit {self.unit} needs features; a vector has none.")
            if target.features and self.unit == "feature_p99" and not target.scales:
                raise InputError(f"The unit feature_p99 needs scales for the features at {target.block}.")

    def active(self, t: float) -> bool:
        """Whether the edit acts at the step of this t."""
        low, high = self.window
        return low < round(t, 9) <= high or (low == 0.0 and t <= 0.0)

    @property
    def name(self) -> str:
        """What the edit adds, in a word."""
        return self.concept or self.word or "features"

    @property
    def digest(self) -> str:
        """16 hex digits of what the edit does; equal edits have equal digests, everywhere.

        Once there are targets, how they were found (`blocks`, `t`, `choice`) changes nothing, and does not count.
        """
        plain = asdict(self)
        if self.region.everywhere and self.strength < 0.0:
            plain["outside"] = "remove"  # as when that was the default; there is nothing outside
        if self.targets:
            plain |= {"blocks": (), "t": None, "choice": "labels"}  # as when that was the default
        plain["targets"] = [_usual_left_out(target) for target in plain["targets"]]  # as before streams had a name
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_targets(self, targets: Sequence[Target]) -> Edit:
        """The same edit with its concept or word turned into targets."""
        return replace(self, targets=tuple(targets))

    def as_dict(self) -> dict[str, Any]:
        """Plain values without what is left at its default; `edit_files.read_edit` gives the edit back.

        The strength and how features are found are always said: what is measured best, and so the default, changes.
        """
        usual = asdict(_DEFAULT) | {"concept": "", "choice": self.choice}
        if self.region.everywhere and self.strength < 0.0:
            usual["outside"] = "keep"
        said = ("strength", "t", "choice") if self.concept or self.word else ("strength",)
        plain = {name: value for name, value in asdict(self).items() if name in said or value != usual[name]}
        if "region" in plain:
            plain["region"] = {name: value for name, value in plain["region"].items() if value}
        if "targets" in plain:
            keep = ("block", "branch", "t")
            targets = (_usual_left_out(target) for target in plain["targets"])
            plain["targets"] = [{n: v for n, v in target.items() if v or n in keep} for target in targets]
        return plain


def _usual_left_out(target: dict[str, Any]) -> dict[str, Any]:
    """A target without the stream and signal that nearly all have."""
    usual = {"stream": STREAMS[0], "signal": SIGNALS[0]}
    return {name: value for name, value in target.items() if usual.get(name) != value}


_DEFAULT = Edit(concept="-")


def stage_of(window: str) -> str:
    """The stage at whose first step a window begins."""
    return next(name for name, (_, high) in STAGES.items() if high == WINDOWS[window][1])

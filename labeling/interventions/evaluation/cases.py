"""What an evaluation of edits tries: how much, with which settings, which concept or style on which picture."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le, MinLen

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Effect, Fraction, Natural, OneOf, Positive, setting, settings
from gazetteer.data.core.sites import BRANCHES
from gazetteer.data.inputs.edits import (
    CHOICES,
    CONTRAST_UNHEARD,
    OUTSIDES,
    SAE_UNITS,
    STAGES,
    UNITS,
    UNWEIGHTED,
    WINDOWS,
)
from gazetteer.data.inputs.prompts import split_of
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.labeling.vocabulary.concepts import Vocabulary

if TYPE_CHECKING:
    from gazetteer.diffusion.edit_sampler import Start

DENSE_CHOICE = "dense"
"""In the place of a choice of features: the mean-difference direction of dense activations."""


@dataclass(frozen=True)
class EditSetting:
    """How an edit is made: what is chosen on one half of the prompts.

    Attributes:
        strength: β.
        branch: of the edit.
        top: features a block at most; 0: as many as `gazetteer.labeling.interventions.resolve.Resolver` takes.
        choice: which features, and how much of each (`gazetteer.data.inputs.edits.Edit`).
        t: of the features; below 0: nearest to the middle of the stage.
        outside: what the edit does outside its region (`gazetteer.data.inputs.edits.Edit`).
        size: the region's side as a share of the quadrant's, in whose middle it lies.
        unit: of the strength.
    """

    strength: float
    branch: str = "cond"
    top: int = 0
    choice: str = "labels"
    t: float = -1.0
    outside: str = "remove"
    size: float = 1.0
    unit: str = "update_norm"

    @property
    def name(self) -> str:
        """A key for results."""
        features = f"{self.choice}{f' {self.top}' if self.top else ''}{f' t={self.t:g}' if self.t >= 0 else ''}"
        return f"{self.strength:g} {self.unit} {self.branch} {features} {self.outside} {self.size:g}"

    def region(self, quadrant: str) -> Region:
        """Where the edit acts; without a quadrant everywhere."""
        if not quadrant:
            return Region()
        x0, y0, x1, y1 = QUADRANTS[quadrant]
        dx, dy = (x1 - x0) * (1 - self.size) / 2, (y1 - y0) * (1 - self.size) / 2
        return Region(box=(x0 + dx, y0 + dy, x1 - dx, y1 - dy))


@settings("steer")
class SteerConfig:
    """What `gazetteer steer evaluate` tries."""

    concepts: tuple[str, ...] = setting(
        Effect.MEASUREMENTS, "Things to place; empty: every concept of the vocabulary.", default=()
    )
    words: tuple[str, ...] = setting(
        Effect.MEASUREMENTS, "Styles to give, as prompts name them and the classifier's labels read.", default=()
    )
    classifier: str = setting(
        Effect.MEASUREMENTS,
        "``module:function`` that gives a `Classifier`; empty leaves the global edits out.",
        default="",
    )
    avoid: tuple[str, ...] = setting(
        Effect.MEASUREMENTS,
        "Prompts with one of these words are no case of a spatial edit: those that say themselves where "
        "things are to be.",
        default=(),
    )
    unit: Annotated[str, OneOf(UNITS)] = setting(
        Effect.MEASUREMENTS, "Of every strength but those of the published edit.", default="update_norm"
    )
    strengths: Annotated[tuple[Positive, ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "Strengths to try.",
        default=(0.25, 0.5, 1.0, 2.0, 4.0),
    )
    branches: Annotated[tuple[Annotated[str, OneOf((*BRANCHES, "both"))], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "Branches to edit: `cond`, `uncond` or `both`.",
        default=("cond", "both"),
    )
    tops: Annotated[tuple[Natural, ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "Features a block at most, to try; 0: as many as the labels give.",
        default=(0,),
    )
    choices: Annotated[tuple[Annotated[str, OneOf(CHOICES)], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "How the features are chosen, to try (`gazetteer.data.inputs.edits.Edit`).",
        default=("labels",),
    )
    ts: Annotated[tuple[Annotated[float, Le(1)], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "Moments of the autoencoders whose features are taken, to try; below 0: nearest to the middle of the stage.",
        default=(-1.0,),
    )
    outsides: Annotated[tuple[Annotated[str, OneOf(OUTSIDES)], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "What a spatial edit does outside its region, to try.",
        default=("remove",),
    )
    sizes: Annotated[tuple[Annotated[float, Gt(0), Le(1)], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "Side of a spatial edit's region as a share of the quadrant's, to try.",
        default=(1.0,),
    )
    paper_strengths: Annotated[tuple[Positive, ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "β of the published edit (arXiv 2504.15473, equation 2), which is tried as a method of its own: all features "
        "in whose dictionary the concept stands, β·‖Z[i,j]‖, taken out outside the whole quadrant, by the "
        "autoencoders nearest to the stage.",
        default=(0.03, 0.1, 0.3, 1.0, 3.0),
    )
    direction_images: Natural = setting(
        Effect.MEASUREMENTS,
        "Discovery pictures that are sampled again for the mean-difference direction of dense activations, which is "
        "tried without any autoencoder beside the features; 0 leaves it out.",
        default=128,
    )
    blocks: tuple[str, ...] = setting(Effect.MEASUREMENTS, "Of every edit; empty: all.", default=())
    windows: Annotated[tuple[Annotated[str, OneOf(tuple(WINDOWS))], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS,
        "At which steps edits act, each with a setting of its own; results name it as their stage.",
        default=tuple(STAGES),
    )
    keep: Fraction = setting(
        Effect.MEASUREMENTS,
        "A style's setting is chosen among those that keep so much of the layout (mean IoU of the concepts' "
        "masks before and after); where none does, the one that keeps most.",
        default=0.5,
    )
    cases: Count = setting(Effect.MEASUREMENTS, "Pictures a stage and method, for the spatial edits.", default=500)
    global_cases: Count = setting(Effect.MEASUREMENTS, "The same for the global edits.", default=500)
    tuning: Count = setting(
        Effect.MEASUREMENTS,
        "Pictures on which the last settings are compared; the others drop out on half, a quarter … of them.",
        default=80,
    )
    chunk: Count = setting(Effect.MEASUREMENTS, "Cases that are done, and recorded, together.", default=20)
    dtype: Annotated[str, OneOf(("float32", "bfloat16"))] = setting(
        Effect.MEASUREMENTS,
        "In which all pictures of the evaluation are sampled; ``bfloat16`` takes about half the time.",
        default="float32",
    )

    def __post_init__(self) -> None:
        if self.unit == "code" and "subtract" in self.outsides:
            raise InputError("steer.outsides has subtract, which the unit code cannot do; leave it out.")
        if self.unit in UNWEIGHTED and "contrast" in self.choices and 0 in self.tops:
            raise InputError(f"steer.unit={self.unit}: {CONTRAST_UNHEARD}; take steer.tops above 0, or other choices.")

    def settings(self, spatial: bool) -> list[EditSetting]:
        """Every combination, weakest first."""
        common = (sorted(self.strengths), self.branches, self.tops, self.choices, self.ts)
        where = (self.outsides, self.sizes) if spatial else (("remove",), (1.0,))
        return [EditSetting(*values, self.unit) for values in itertools.product(*common, *where)]

    def paper_settings(self) -> list[EditSetting]:
        """The published spatial edit at every strength, weakest first."""
        return [EditSetting(b, choice="dictionary", unit="code_norm") for b in sorted(self.paper_strengths)]

    def dense_settings(self) -> list[EditSetting]:
        """Those of the mean-difference direction, which has no features to choose, weakest first."""
        unit = "update_norm" if self.unit in SAE_UNITS else self.unit
        free = (replace(made, choice=DENSE_CHOICE, top=0, unit=unit) for made in self.settings(spatial=True))
        return list(dict.fromkeys(free))

    def quick(self) -> SteerConfig:
        """A sample that a laptop draws in a few minutes."""
        strengths, paper = (
            tuple(sorted(swept))[(len(swept) - 1) // 2 :][:2] for swept in (self.strengths, self.paper_strengths)
        )
        return replace(
            self, strengths=strengths, paper_strengths=paper, branches=self.branches[:1], tops=self.tops[:1],
            choices=self.choices[:1],
            ts=self.ts[:1], outsides=self.outsides[:1], sizes=self.sizes[:1],
            direction_images=min(32, self.direction_images), cases=20, global_cases=12, tuning=10,
            chunk=10,
        )  # fmt: skip


@dataclass(frozen=True)
class EditCase:
    """One thing to try on one picture: place `name` in the quadrant, or, without one, give the style `name`."""

    start: Start
    name: str
    quadrant: str = ""


class Cases:
    """Held-out prompts in two halves: settings are chosen on `discovery`, everything is reported on `heldout`.

    A longer list of cases begins with the shorter one, and any number of them is as even over concepts, quadrants and
    styles as it can be.
    """

    def __init__(self, config: SteerConfig, vocabulary: Vocabulary, prompts: Sequence[str], seed: int) -> None:
        """Raises InputError when a half is empty."""
        self.config, self.vocabulary, self.seed = config, vocabulary, seed
        self.concepts = config.concepts or vocabulary.concepts
        self.halves = {half: [p for p in prompts if split_of(f"strength: {p}", 0.5) == half]
                       for half in ("discovery", "heldout")}  # fmt: skip
        if not all(self.halves.values()):
            raise InputError("steer evaluate needs at least two held-out prompts; raise images or heldout.")

    def spatial(self, half: str, count: int) -> list[EditCase]:
        """Concepts and quadrants in turn, on prompts that name the concept and no word of `SteerConfig.avoid`."""
        from gazetteer.diffusion.edit_sampler import Start
        from gazetteer.labeling.interventions.resolve import names

        free = [p for p in self.halves[half] if not any(names(p, word) for word in self.config.avoid)]
        naming = {c: [p for p in free if c in self.vocabulary.mentioned(p)] for c in self.concepts}
        concepts = [c for c in self.concepts if naming[c]]
        if not concepts:
            raise InputError("No held-out prompt names any of steer.concepts.")
        quadrants, cases = list(QUADRANTS), list[EditCase]()
        used: dict[str, int] = defaultdict(int)
        for i in range(count):
            concept = concepts[i % len(concepts)]
            # Shifted once a round, so that concepts and quadrants meet in every pairing.
            quadrant = quadrants[(i % len(concepts) + i // len(concepts)) % len(quadrants)]
            prompt = naming[concept][used[concept] % len(naming[concept])]
            used[concept] += 1
            cases.append(EditCase(Start(prompt, self.seed + used[concept]), concept, quadrant))
        return cases

    def globally(self, half: str, count: int) -> list[EditCase]:
        """Words in turn, on prompts that name none of them."""
        from gazetteer.diffusion.edit_sampler import Start
        from gazetteer.labeling.interventions.resolve import names

        free = [p for p in self.halves[half] if not any(names(p, word) for word in self.config.words)]
        if not free:
            raise InputError("Every held-out prompt names one of steer.words; there is nothing to restyle.")
        words = self.config.words
        return [EditCase(Start(free[i % len(free)], self.seed + i), words[i % len(words)]) for i in range(count)]

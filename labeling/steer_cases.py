"""What an evaluation of edits tries: how much of it, and which concept or look on which picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from data.edits import QUADRANTS
from data.errors import InputError
from data.prompts import split_of
from labeling.steer_bench import Start
from labeling.steering import names
from labeling.vocabulary import Vocabulary


@dataclass(frozen=True)
class SteerConfig:
    """What `gazetteer steer evaluate` tries.

    Attributes:
        concepts: things to place; empty: every concept of the vocabulary.
        words: looks to give, as prompts name them and the judge's labels read.
        judge: ``module:function`` that gives a `Judge`; empty leaves the global edits out.
        strengths: β tried on one half of the prompts, in units of the update's norm.
        branch: of every edit.
        blocks: of every edit; empty: all.
        top: features a block at most, 0: all of a concept's, 8 of a word's.
        cases: pictures a stage and method, for the spatial and for the global edits each.
        tuning: pictures a stage and strength.
    """

    concepts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    judge: str = ""
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    branch: str = "cond"
    blocks: tuple[str, ...] = ()
    top: int = 0
    cases: int = 2000
    tuning: int = 200

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0.0 or min(self.cases, self.tuning) < 1:
            raise InputError("steer.strengths must be positive numbers, steer.cases and steer.tuning at least 1.")

    def quick(self) -> SteerConfig:
        """A sample that a laptop draws in a few minutes."""
        return SteerConfig(
            self.concepts, self.words, self.judge, (0.5, 2.0), self.branch, self.blocks, self.top, cases=12, tuning=6
        )


@dataclass(frozen=True)
class Case:
    """One thing to try on one picture: place `name` in the quadrant, or, without one, give the look `name`."""

    start: Start
    name: str
    quadrant: str = ""


class Cases:
    """Held-out prompts in two halves: strengths are chosen on `discovery`, everything is reported on `heldout`."""

    def __init__(self, config: SteerConfig, vocabulary: Vocabulary, prompts: Sequence[str], seed: int) -> None:
        """Raises InputError when a half is empty."""
        self.config, self.vocabulary, self.seed = config, vocabulary, seed
        self.concepts = config.concepts or vocabulary.concepts
        self.halves = {half: [p for p in prompts if split_of(f"strength: {p}", 0.5) == half]
                       for half in ("discovery", "heldout")}  # fmt: skip
        if not all(self.halves.values()):
            raise InputError("steer evaluate needs at least two held-out prompts; raise images or heldout.")

    def spatial(self, half: str, count: int) -> list[Case]:
        """Concepts and quadrants in turn, so that any number of cases is as even as it can be."""
        naming = {c: [p for p in self.halves[half] if c in self.vocabulary.mentioned(p)] for c in self.concepts}
        concepts = [c for c in self.concepts if naming[c]]
        if not concepts:
            raise InputError("No held-out prompt names any of steer.concepts.")
        quadrants, cases = list(QUADRANTS), list[Case]()
        used: dict[str, int] = defaultdict(int)
        for i in range(count):
            concept = concepts[i % len(concepts)]
            # Shifted once a round, so that concepts and quadrants meet in every pairing.
            quadrant = quadrants[(i % len(concepts) + i // len(concepts)) % len(quadrants)]
            prompt = naming[concept][used[concept] % len(naming[concept])]
            used[concept] += 1
            cases.append(Case(Start(prompt, self.seed + used[concept]), concept, quadrant))
        return cases

    def globally(self, half: str, count: int) -> list[Case]:
        """Words in turn, on prompts that name none of them."""
        free = [p for p in self.halves[half] if not any(names(p, word) for word in self.config.words)]
        if not free:
            raise InputError("Every held-out prompt names one of steer.words; there is nothing to restyle.")
        words = self.config.words
        return [Case(Start(free[i % len(free)], self.seed + i), words[i % len(words)]) for i in range(count)]

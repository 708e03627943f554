"""Same-seed pairs of pictures: cases painted by the intact and by the edited model, counted once for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.method_names import FEATURES
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case, named_in
from gazetteer.attribution.evaluation.distances import traits
from gazetteer.attribution.evaluation.evaluators import Evaluators
from gazetteer.attribution.evaluation.outcomes import Outcome, compare, pack, unpack
from gazetteer.attribution.features.erasing import FeatureErasers
from gazetteer.data.core.errors import InputError

_APART = 100_000
"""Between the seeds of the same prompt: more than there are cases."""


@dataclass
class PicturePairs:
    """What is painted for a concept and an edit, and what is counted in it.

    Attributes:
        methods: makes the edits.
        evaluators: paint and read.
        cases: of both halves.
        most: cases per half and concept that name it, beside half as many that do not.
        seek: to amplify, pictures painted per half and concept to find up to `most` more that the intact model misses.
        neighbours: per concept those closest to it, which are counted apart.
        erasers: erase through features of autoencoders, where there are some.
        cache: holds every outcome, so that an evaluation that was stopped goes on; default: in memory.
    """

    methods: Methods
    evaluators: Evaluators
    cases: Sequence[Case]
    most: int = 12
    seek: int = 0
    neighbours: Mapping[str, Collection[str]] = field(default_factory=dict)
    cache: ResultCache = field(default_factory=ResultCache)
    erasers: FeatureErasers | None = None

    def outcome(self, goal: str, method: str, concept: str, fraction: float, half: int) -> Outcome:
        """Paint the cases of a half with and without the edit, and count."""
        key = (goal, method, concept, fraction, "report" if half == REPORT else "choose")
        return self.once(key, lambda: self.edited(goal, method, concept, fraction, self._tried(goal, concept, half)))

    def blocking(self, concept: str) -> Outcome:
        """What it does to one concept to take its word out of the prompt, where that can be done (`blockable`)."""

        def block() -> Outcome:
            cases = self.blockable(concept)
            without = [replace(case, prompt=self.methods.without(case.prompt, concept)) for case in cases]
            named = [place for place, case in enumerate(cases) if concept in case.named]
            edited = self.evaluators.intact(cases)  # other prompts stay as they are
            for place, observation in zip(
                named, self.evaluators.observe([without[place] for place in named]), strict=True
            ):
                edited[place] = observation
            return compare("erase", concept, cases, self.evaluators.intact(cases), edited, self.near(concept))

        return self.once(("erase", "blocking", concept, "report"), block)

    def blockable(self, concept: str) -> list[Case]:
        """The relevant cases but for those that name the concept by a word that is not found, such as a synonym."""
        return [
            case
            for case in self.relevant(concept, REPORT)
            if concept not in case.named or self.methods.without(case.prompt, concept) != case.prompt
        ]

    def relevant(self, concept: str, half: int) -> list[Case]:
        """The first `most` cases of a half that name the concept, and half as many that do not; InputError if none.

        Those that do not are others for every concept, in turn: intervals draw them for each concept by itself, which
        the same few pictures for all would make too narrow.
        """
        relevant = [c for c in self.cases if c.half == half and concept in c.named][: self.most]
        if not relevant:
            raise InputError(f"No prompt of the evaluation names {concept!r}; give more prompts or other concepts.")
        others = [c for c in self.cases if c.half == half and concept not in c.named]
        wanted = min((self.most + 1) // 2, len(others))
        first = sorted(named_in(self.cases, half)).index(concept) * wanted
        return relevant + [others[(first + place) % len(others)] for place in range(wanted)]

    def _tried(self, goal: str, concept: str, half: int) -> list[Case]:
        """The relevant cases; to amplify also some that were sought."""
        return self.relevant(concept, half) + (self.sought(concept, half) if goal == "amplify" else [])

    def sought(self, concept: str, half: int) -> list[Case]:
        """Up to `most` cases that the intact model misses: the prompts of a half that name a concept, other seeds.

        They are looked for before anything is edited, the same for all methods.
        """
        named = [case for case in self.cases if case.half == half and concept in case.named]

        def seek() -> list[tuple[int, int]]:
            missed: list[tuple[int, int]] = []
            tries = [(place, turn) for turn in range(self.seek) for place in range(len(named))]
            for start in range(0, min(self.seek, len(tries)), 8):
                seeds = tries[start : min(start + 8, self.seek)]
                observations = self.evaluators.observe([_again(named[place], turn) for place, turn in seeds])
                missed += [
                    seed
                    for seed, observation in zip(seeds, observations, strict=True)
                    if concept not in observation.found
                ]
                if len(missed) >= self.most:
                    break
            return missed[: self.most]

        return [_again(named[place], turn) for place, turn in self.cache.json(("sought", concept, half), seek)]

    def named(self, half: int) -> set[str]:
        """The concepts that the prompts of a half name."""
        return named_in(self.cases, half)

    def rates(self, half: int) -> dict[str, tuple[float, float]]:
        """Per concept named on a half: how often the intact model shows it where it is named, and where it is not."""
        rates: dict[str, list[float]] = self.cache.json(("rates", half), lambda: self._rates(half))
        return {concept: (named, unnamed) for concept, (named, unnamed) in rates.items()}

    def _rates(self, half: int) -> dict[str, tuple[float, float]]:
        cases = [case for case in self.cases if case.half == half]
        areas = [observation.found for observation in self.evaluators.intact(cases)]
        rates = {}
        for concept in sorted(set().union(*(case.named for case in cases))):
            shown: tuple[list[bool], list[bool]] = ([], [])
            for case, has in zip(cases, areas, strict=True):
                shown[concept not in case.named].append(concept in has)
            rates[concept] = (float(np.mean(shown[0])), float(np.mean(shown[1])) if shown[1] else 0.0)
        return rates

    def reference(self) -> NDArray[np.float64]:
        """`distances.traits` of the intact model's pictures of the choosing half, [pictures, traits]; none: [0, 0]."""

        def make() -> dict[str, NDArray[np.float64]]:
            observed = self.evaluators.intact([case for case in self.cases if case.half == CHOOSE])
            maps = [observation.maps for observation in observed if observation.maps is not None]
            return {"traits": traits(maps).astype(np.float32) if maps else np.empty((0, 0))}

        return self.cache.arrays(("reference",), make)["traits"].astype(np.float64)

    def once(self, key: tuple[str | float, ...], make: Callable[[], Outcome]) -> Outcome:
        """The outcome of a key, made where the cache has none."""
        return unpack(self.cache.arrays(key, lambda: pack(make())))

    def under(self, goal: str, concept: str, cases: Sequence[Case], edit: AbstractContextManager[object]) -> Outcome:
        """Paint cases with and without whatever a context manager does to the model, and count."""
        intact = self.evaluators.intact(cases)
        with edit:
            edited = self.evaluators.observe(cases)
        return compare(goal, concept, cases, intact, edited, self.near(concept))

    def edited(self, goal: str, method: str, concept: str, fraction: float, cases: Sequence[Case]) -> Outcome:
        """Paint cases with and without the edit of a method, and count."""
        begun = time.process_time()
        with_it = self.changed(goal, method, concept, fraction)
        spent = time.process_time() - begun
        self.cache.json(("seconds", goal, method, concept, fraction), lambda: spent)
        weights = 0 if method in FEATURES else len(self.methods.edit(goal, method, concept, fraction))
        return replace(self.under(goal, concept, cases, with_it), weights=weights)

    def changed(self, goal: str, method: str, concept: str, fraction: float) -> AbstractContextManager[object]:
        """While open, the model is as a method leaves it: other weights, or other features in what blocks write.

        What the change is made of is measured before, on the intact model.

        Raises:
            InputError: a method on features where there are no autoencoders.
        """
        if method not in FEATURES:
            return applied(self.methods.denoiser, self.methods.edit(goal, method, concept, fraction))
        if self.erasers is None:
            raise InputError(f"{method} needs autoencoders of the model: set saes.")
        return self.erasers.erased(method, concept, fraction)

    def seconds(self, goal: str, method: str, concept: str, fractions: Iterable[float]) -> float | None:
        """CPU-seconds of this process to make an edit, the most of several doses: later ones reuse scores.

        None where nobody measured it, as in folders of older versions.
        """
        keys = (("seconds", goal, method, concept, fraction) for fraction in fractions)
        known = (self.cache.known(key) for key in keys)
        return max((spent for spent in known if spent is not None), default=None)

    def near(self, concept: str) -> Collection[str]:
        """The concept's neighbours."""
        return self.neighbours.get(concept, ())


def _again(case: Case, turn: int) -> Case:
    """The same prompt from a noise that no other case has."""
    return replace(case, seed=case.seed + _APART * (turn + 1), sought=True)

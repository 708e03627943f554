"""What edits of weights do to pictures: same-seed pairs of the intact and the edited model, judged by a detector.

The operating point of a method (the share of weights it takes) is chosen on one half of the prompts and reported on
the other; controls take the counts, layer by layer, that the method they follow takes at its own point.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.method_names import leader, takes_all
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.evaluation.adversary import Attack, NoAttackError, adversarial_words
from gazetteer.attribution.evaluation.cache import Kept
from gazetteer.attribution.evaluation.outcomes import (
    CHOOSE,
    REPORT,
    Case,
    Interval,
    Outcome,
    compare,
    interference,
    interference_pictures,
    pack,
    quality,
    summary,
    unpack,
    with_differences,
)
from gazetteer.attribution.evaluation.witnesses import Witnesses
from gazetteer.attribution.objective.prompts import fits, names, paraphrases
from gazetteer.data.core.errors import InputError

_APART = 100_000
"""Between the seeds of the same prompt: more than there are cases."""


@dataclass(frozen=True)
class Protocol:
    """What is evaluated.

    Attributes:
        erase, amplify: the methods.
        shares: operating points to choose among, and of the dose-response curve.
        special: shares of methods that have their own.
        most: cases per half and concept that name it, beside half as many that do not.
        seek: to amplify, pictures painted per half and concept to find up to `most` more that the intact model misses.
        kept: an operating point should leave other concepts at this share of their rate or more.
        aim: to erase, the gentlest share that also brings the target surely down to this is taken.
        curved: followers that are shown at all of their shares too.
        paraphrased: methods that are also judged on paraphrases of the prompts that name the concept.
        attacked: erasing methods that are also judged with words added that were optimised against each edit.
        attack: how hard these are searched.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    erase: tuple[str, ...]
    amplify: tuple[str, ...]
    shares: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    most: int = 12
    seek: int = 0
    kept: float = 0.9
    aim: float = 0.15
    special: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    curved: tuple[str, ...] = ()
    paraphrased: tuple[str, ...] = ()
    attacked: tuple[str, ...] = ()
    attack: Attack = Attack()
    resamples: int = 1000
    seed: int = 0

    def points(self, method: str) -> tuple[float, ...]:
        """The shares a method may take, in ascending order."""
        return (1.0,) if takes_all(method) else tuple(sorted(self.special.get(method, self.shares)))


class Evaluation:
    """Every method on every concept, in same-seed pairs."""

    def __init__(
        self,
        methods: Methods,
        witnesses: Witnesses,
        cases: Sequence[Case],
        protocol: Protocol,
        *,
        neighbours: Mapping[str, Collection[str]] | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Prepare.

        Args:
            neighbours: per concept those closest to it, which are counted apart.
            kept: where every outcome is kept, so that an evaluation that was stopped goes on; default: in memory.
        """
        self.methods, self.witnesses = methods, witnesses
        self.cases, self.protocol = list(cases), protocol
        self.neighbours = neighbours or {}
        self.kept = kept or Kept()

    def run(self, aim: str, concepts: Sequence[str], only: Collection[str] = ()) -> dict[str, Any]:
        """Every method of an aim, or only some, the reference and whatever they follow, on every concept.

        Returns:
            per method, on the reporting half, what `summary` says with a 95 % bootstrap interval over concepts and
            cases: ``target`` is, for erase, found edited ÷ found intact over cases that name the concept; for
            amplify, the share of cases the intact model missed in which the edited one shows it; ``others`` is found
            edited ÷ found intact over all other named concepts, ``near`` and ``far`` the neighbours and the rest.
            Beside them ``by_concept`` (`summary` of each alone, no intervals), ``quality``, ``interference`` with
            ``interference_pictures``, ``weights`` (how many, mean over concepts), ``share`` (the operating point),
            ``curve`` (per share `summary` on the choosing half), ``minus`` (per control of the method, `COMPARED`:
            `difference` of the two) and, where asked for, ``paraphrased`` and ``attacked``, each with how many prompts
            were ``left_out`` because the tokenizer would cut them; ``attacked`` also says the ``words`` and of which
            concepts they are the name (``names_it``), or only why it was ``skipped``.
        """
        methods = self.protocol.erase if aim == "erase" else self.protocol.amplify
        reference = self.methods.config.reference
        wanted = {m for m in methods if not only or m in only or m == reference}
        wanted |= {leader(m, reference) for m in wanted}
        methods = tuple(m for m in methods if m in wanted)
        leaders = {leader(m, reference) for m in methods}
        results: dict[str, Any] = {}
        points: dict[str, float] = {}
        reported: dict[str, list[Outcome]] = {}
        # Followers need to know what is taken by the method they follow; else in the order given.
        for method in sorted(methods, key=lambda name: name not in leaders):
            followed = points.get(leader(method, reference))
            drawn = followed is None or method in self.protocol.curved
            curve = self.curve(aim, method, concepts) if drawn else {}
            share = points[method] = self._best(aim, method, curve) if followed is None else followed
            outcomes = {c: self.outcome(aim, method, c, share, REPORT) for c in concepts}
            results[method] = {
                **self._summary(aim, list(outcomes.values())),
                "by_concept": {c: _means(summary(aim, [o], 0, 0)) for c, o in outcomes.items()},
                "quality": quality(list(outcomes.values()), min(200, self.protocol.resamples), self.protocol.seed),
                "interference": interference(outcomes),
                "interference_pictures": interference_pictures(outcomes),
                "share": share,
                "weights": float(np.mean([outcome.weights for outcome in outcomes.values()])),
                "concepts": list(concepts),
                "curve": [{"share": dose, **self._summary(aim, some)} for dose, some in curve.items()],
            }
            reported[method] = list(outcomes.values())
            if method in self.protocol.paraphrased:
                results[method]["paraphrased"] = self._paraphrased(aim, method, concepts, share)
            if method in self.protocol.attacked:
                results[method]["attacked"] = self._attacked(method, concepts, share)
        return with_differences(aim, results, reported, self.protocol.resamples, self.protocol.seed)

    def curve(self, aim: str, method: str, concepts: Sequence[str]) -> dict[float, list[Outcome]]:
        """Dose and response on the choosing half: outcomes by share; empty where there is only one share to take."""
        shares = self.protocol.points(method)
        many = shares if len(shares) > 1 else ()
        return {share: [self.outcome(aim, method, c, share, CHOOSE) for c in concepts] for share in many}

    def outcome(self, aim: str, method: str, concept: str, share: float, half: int) -> Outcome:
        """Paint the cases of a half with and without the edit, and count."""
        key = (aim, method, concept, share, "report" if half == REPORT else "choose")
        return self._once(key, lambda: self._compare(aim, method, concept, share, self._tried(aim, concept, half)))

    def blocked(self, concepts: Sequence[str]) -> dict[str, Any]:
        """The trivial baseline: the word is taken out of the prompt and the model left alone."""
        outcomes = {c: self.blocking(c) for c in concepts}
        found = self._summary("erase", list(outcomes.values()))
        each = {c: _means(summary("erase", [o], 0, 0)) for c, o in outcomes.items()}
        return {
            **found, "by_concept": each, "interference": interference(outcomes),
            "interference_pictures": interference_pictures(outcomes), "concepts": list(concepts),
        }  # fmt: skip

    def blocking(self, concept: str) -> Outcome:
        """What it does to one concept."""

        def block() -> Outcome:
            cases = self.relevant(concept, REPORT)
            without = [replace(case, prompt=self.methods.without(case.prompt, concept)) for case in cases]
            named = [place for place, case in enumerate(cases) if concept in case.named]
            edited = self.witnesses.intact(cases)  # other prompts stay as they are
            for place, look in zip(named, self.witnesses.look([without[place] for place in named]), strict=True):
                edited[place] = look
            return compare("erase", concept, cases, self.witnesses.intact(cases), edited, self._near(concept))

        return self._once(("erase", "blocking", concept, "report"), block)

    def relevant(self, concept: str, half: int) -> list[Case]:
        """The first `most` cases of a half that name the concept, and half as many that do not; InputError if none."""
        mine = [c for c in self.cases if c.half == half and concept in c.named][: self.protocol.most]
        if not mine:
            raise InputError(f"No prompt of the evaluation names {concept!r}; give more prompts or other concepts.")
        return (
            mine + [c for c in self.cases if c.half == half and concept not in c.named][: (self.protocol.most + 1) // 2]
        )

    def _tried(self, aim: str, concept: str, half: int) -> list[Case]:
        """The relevant cases; to amplify also some that were sought."""
        return self.relevant(concept, half) + (self.sought(concept, half) if aim == "amplify" else [])

    def sought(self, concept: str, half: int) -> list[Case]:
        """Up to `most` cases that the intact model misses: the prompts of a half that name a concept, other seeds.

        They are looked for before anything is edited, the same for all methods.
        """
        named = [case for case in self.cases if case.half == half and concept in case.named]

        def seek() -> list[tuple[int, int]]:
            missed: list[tuple[int, int]] = []
            tries = [(place, turn) for turn in range(self.protocol.seek) for place in range(len(named))]
            for start in range(0, min(self.protocol.seek, len(tries)), 8):
                some = tries[start : min(start + 8, self.protocol.seek)]
                looks = self.witnesses.look([_again(named[place], turn) for place, turn in some])
                missed += [one for one, look in zip(some, looks, strict=True) if concept not in look.found]
                if len(missed) >= self.protocol.most:
                    break
            return missed[: self.protocol.most]

        return [_again(named[place], turn) for place, turn in self.kept.json(("sought", concept, half), seek)]

    def named(self, half: int) -> set[str]:
        """The concepts that the prompts of a half name."""
        return set().union(*(case.named for case in self.cases if case.half == half))

    def rates(self, half: int) -> dict[str, tuple[float, float]]:
        """Per concept named on a half: how often the intact model shows it where it is named, and where it is not."""
        found: dict[str, list[float]] = self.kept.json(("rates", half), lambda: self._rates(half))
        return {concept: (named, unnamed) for concept, (named, unnamed) in found.items()}

    def _rates(self, half: int) -> dict[str, tuple[float, float]]:
        cases = [case for case in self.cases if case.half == half]
        found = [look.found for look in self.witnesses.intact(cases)]
        rates = {}
        for concept in sorted(set().union(*(case.named for case in cases))):
            shown: tuple[list[bool], list[bool]] = ([], [])
            for case, has in zip(cases, found, strict=True):
                shown[concept not in case.named].append(concept in has)
            rates[concept] = (float(np.mean(shown[0])), float(np.mean(shown[1])) if shown[1] else 0.0)
        return rates

    def _once(self, key: tuple[str | float, ...], make: Callable[[], Outcome]) -> Outcome:
        return unpack(self.kept.arrays(key, lambda: pack(make())))

    def _paraphrased(self, aim: str, method: str, concepts: Sequence[str], share: float) -> dict[str, Any]:
        outcomes, left = [], 0
        for concept in concepts:
            named = [case for case in self.relevant(concept, REPORT) if concept in case.named]
            said = [replace(case, prompt=text) for case in named for text in paraphrases(case.prompt, concept)]
            cases = [case for case in said if fits(self.methods.pipe, case.prompt)]
            key: tuple[str | float, ...] = (aim, method, concept, share, "paraphrased", *_whole(cases, said))
            outcomes.append(self._once(key, partial(self._compare, aim, method, concept, share, cases)))
            left += len(said) - len(cases)
        return {**self._summary(aim, outcomes), "left_out": left}

    def _attacked(self, method: str, concepts: Sequence[str], share: float) -> dict[str, Any]:
        """With words optimised against each edit on other prompts: found edited ÷ found intact without the words.

        ``left_out``: cases whose prompt has no room for the words; ``names_it``: concepts that their words name, which
        is no attack. Where the attack does not fit the pipeline, ``skipped`` says why: it must not end an evaluation of
        hours.
        """
        words: dict[str, str] = {}

        def make(concept: str, cases: Sequence[Case], said: Sequence[Case]) -> Outcome:
            intact = self.witnesses.intact(cases)
            with applied(self.methods.unet, self.methods.edit("erase", method, concept, share)):
                edited = self.witnesses.look(said)
            return compare("erase", concept, cases, intact, edited, self._near(concept))

        def search(concept: str) -> str:
            prompts, samples = self.methods.unedited(concept)
            with applied(self.methods.unet, self.methods.edit("erase", method, concept, share)):
                return adversarial_words(self.methods.pipe, prompts, samples, self.protocol.attack)[0]

        outcomes, left = [], 0
        for concept in concepts:
            key = ("erase", method, concept, share)
            try:
                words[concept] = self.kept.json((*key, "words"), partial(search, concept))
            except NoAttackError as error:
                return {"skipped": str(error)}
            named = [case for case in self.relevant(concept, REPORT) if concept in case.named]
            said = {case: replace(case, prompt=f"{case.prompt} {words[concept]}") for case in named}
            cases = [case for case in named if fits(self.methods.pipe, said[case].prompt)]
            make_it = partial(make, concept, cases, [said[case] for case in cases])
            outcomes.append(self._once((*key, "attacked", *_whole(cases, named)), make_it))
            left += len(named) - len(cases)
        named_by = [concept for concept in concepts if names(words[concept], concept)]
        return {**self._summary("erase", outcomes), "words": words, "left_out": left, "names_it": named_by}

    def under(self, aim: str, concept: str, cases: Sequence[Case], edit: AbstractContextManager[object]) -> Outcome:
        """Paint cases with and without whatever a context manager does to the model, and count."""
        intact = self.witnesses.intact(cases)
        with edit:
            edited = self.witnesses.look(cases)
        return compare(aim, concept, cases, intact, edited, self._near(concept))

    def _compare(self, aim: str, method: str, concept: str, share: float, cases: Sequence[Case]) -> Outcome:
        edit = self.methods.edit(aim, method, concept, share)
        return replace(self.under(aim, concept, cases, applied(self.methods.unet, edit)), weights=len(edit))

    def _best(self, aim: str, method: str, curve: Mapping[float, Sequence[Outcome]]) -> float:
        """The gentlest share that surely reaches the aim, else the one with the best target; both must keep others.

        Surely: the upper end of the target's 95 % interval does. The gentlest of several whose mean happens to reach it
        on a few pictures is too gentle. For the same reason there is one share for all concepts.
        """
        best, best_value = min(self.protocol.points(method)), -np.inf
        for share, outcomes in curve.items():
            found = self._summary(aim, outcomes)
            kept, (target, _, high) = found["others"][0], found["target"]
            if target is None or (kept is not None and kept < self.protocol.kept):
                continue
            value = -target if aim == "erase" else target
            if aim == "erase" and high is not None and high <= self.protocol.aim:
                return share
            if value > best_value:
                best, best_value = share, value
        return best

    def _summary(self, aim: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        return summary(aim, outcomes, self.protocol.resamples, self.protocol.seed)

    def _near(self, concept: str) -> Collection[str]:
        return self.neighbours.get(concept, ())


def _again(case: Case, turn: int) -> Case:
    """The same prompt from a noise that no other case has."""
    return replace(case, seed=case.seed + _APART * (turn + 1), sought=True)


def _whole(cases: Sequence[Case], wanted: Sequence[Case]) -> tuple[str, ...]:
    """Part of a key: outcomes of all wanted cases keep the key they have in folders from before any was left out."""
    return ("whole",) if len(cases) < len(wanted) else ()


def _means(found: Mapping[str, Interval]) -> dict[str, float | None]:
    return {name: interval[0] for name, interval in found.items()}

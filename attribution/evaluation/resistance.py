"""How edits resist: how often an erased concept is back in pictures after each attack, beside the intact model's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.attacks.embedding import Inversion, inverted, said
from gazetteer.attribution.attacks.names import ATTACKS, FLOOR, INTACT
from gazetteer.attribution.attacks.relearning import Relearning, relearned
from gazetteer.attribution.attacks.words import Attack, NoAttackError, adversarial_words, said_with
from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.evaluation.cases import REPORT, Case
from gazetteer.attribution.evaluation.evaluators import Observation
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.summaries import shown
from gazetteer.attribution.objective.prompts import fits, names, paraphrases
from gazetteer.attribution.objective.samples import shuffled
from gazetteer.data.core.settings import OneOf, settings
from gazetteer.labeling.quality.intervals import Interval


@settings("")
class ResistanceConfig:
    """Which attacks are tried, and how hard.

    Attributes:
        attacks: of ATTACKS.
        methods: whose edits are attacked; none: all that erase.
        words: of ``words``, after the prompts; ``unlearndiffatk`` puts as many before them.
        inversion, relearning: of ``embedding`` and of the two ``relearn``.
    """

    attacks: tuple[Annotated[str, OneOf(ATTACKS)], ...] = ATTACKS
    methods: tuple[str, ...] = ()
    words: Attack = Attack()
    inversion: Inversion = Inversion()
    relearning: Relearning = Relearning()


Arrays = Mapping[str, NDArray[Any]]
WORDED = {"words": False, "unlearndiffatk": True}
"""Attacks by words, and whether these stand before the prompt."""


class Resistance:
    """Attacks on the edits of an evaluation, on the reporting half; every result is kept in its cache."""

    def __init__(self, pairs: PicturePairs, config: ResistanceConfig, draws: tuple[int, int]) -> None:
        """Prepare; `draws`: resamples and seed of the bootstrap."""
        self.pairs, self.config, self.draws = pairs, config, draws

    def run(self, fractions: Mapping[str, float], concepts: Sequence[str]) -> dict[str, Any]:
        """Every attack on every method, and on the intact model.

        Args:
            fractions: per method its operating point.

        Returns:
            per method (and ``intact``) and attack: ``shown``, how often the detector finds the concept in the pictures,
            ``classifier``, the same by the classifier's word, ``above_floor``, less the intact model's rate with an
            empty prompt on the same noise, each [rate, low, high] over concepts and noises; ``pictures``,
            ``left_out`` (prompts that the tokenizer would cut), ``by_concept``; of attacks by words also ``words``,
            empty where none beat none, and ``names_it``, concepts that their words name, which is no attack; or only
            ``skipped``, why. ``failed_control``: concepts that the intact model under this very attack shows less than
            half as often as named, whose absence says nothing of an edit; ``proper``: ``shown`` without these and
            without ``names_it``. The intact model has ``empty`` too, the floor.
        """
        methods = {name: dose for name, dose in fractions.items() if name in (self.config.methods or fractions)}
        floor = {concept: self._kept(INTACT, concept, 0.0, FLOOR) for concept in concepts}
        # What no attack is held against is not painted: the floor alone may have been asked for.
        plain = {c: self._kept(INTACT, c, 0.0, "named") for c in concepts if self.config.attacks}
        failed: dict[str, list[str]] = {}
        result: dict[str, Any] = {INTACT: {FLOOR: self._said(floor, floor)}}
        for method, dose in {INTACT: 0.0, **methods}.items():
            for attack in self.config.attacks:
                try:
                    outcomes = {concept: self._kept(method, concept, dose, attack) for concept in concepts}
                except NoAttackError as error:
                    result.setdefault(method, {})[attack] = {"skipped": str(error)}
                    continue
                if method == INTACT:
                    failed[attack] = [c for c in concepts if _rate(outcomes[c]) < _rate(plain[c]) / 2]
                figures = {**self._said(outcomes, floor), **self._words(method, dose, attack, concepts)}
                aside = {*failed[attack], *figures.get("names_it", [])}
                figures |= {"failed_control": failed[attack], "proper": self._shown(outcomes, set(concepts) - aside)}
                result.setdefault(method, {})[attack] = figures
        return result

    def _shown(self, outcomes: Mapping[str, Arrays], of: Collection[str]) -> Interval:
        kept = [outcome for concept, outcome in outcomes.items() if concept in of]
        places = [outcome["place"].tolist() for outcome in kept]
        return shown([outcome["found"] for outcome in kept], *self.draws, drawn=places)

    def _said(self, outcomes: Mapping[str, Arrays], floor: Mapping[str, Arrays]) -> dict[str, Any]:
        paired = {c: (outcome["found"] - floor[c]["found"][outcome["place"]]) for c, outcome in outcomes.items()}
        # Several ways to say one prompt are painted from one noise.
        places = [outcome["place"].tolist() for outcome in outcomes.values()]
        read = [outcome["read"] for outcome in outcomes.values()]
        read_places = [own[: len(each)] for own, each in zip(places, read, strict=True)]  # of all pictures, or none
        return {
            "shown": shown([outcome["found"] for outcome in outcomes.values()], *self.draws, drawn=places),
            "classifier": shown(read, *self.draws, drawn=read_places),
            "above_floor": shown(list(paired.values()), *self.draws, least=-1.0, drawn=places),
            "pictures": sum(len(outcome["found"]) for outcome in outcomes.values()),
            "left_out": sum(int(outcome["left_out"]) for outcome in outcomes.values()),
            "by_concept": {
                c: float(outcome["found"].mean()) if len(outcome["found"]) else None for c, outcome in outcomes.items()
            },
        }

    def _words(self, method: str, dose: float, attack: str, concepts: Sequence[str]) -> dict[str, Any]:
        """What was searched for each concept, of attacks by words."""
        if attack not in WORDED:
            return {}
        searched = replace(self.config.words, before=WORDED[attack])
        words = {c: self.pairs.cache.known(_searched(method, c, dose, searched)) or "" for c in concepts}
        return {"words": words, "names_it": [c for c in concepts if names(words[c], c)]}

    def _kept(self, method: str, concept: str, dose: float, attack: str) -> Arrays:
        key = ("erase", method, concept, dose, "resists", attack)
        return self.pairs.cache.arrays(key, partial(self._attacked, method, concept, dose, attack))

    def _attacked(self, method: str, concept: str, dose: float, attack: str) -> Arrays:
        named = [case for case in self.pairs.relevant(concept, REPORT) if concept in case.named]
        makers: dict[str, Callable[[str, str, float, list[Case]], tuple[list[int], list[Observation]]]] = {
            "paraphrase": self._paraphrased, "words": self._worded, "unlearndiffatk": self._worded_before,
            "embedding": self._embedded, "relearn_concept": partial(self._relearned, True),
            "relearn_other": partial(self._relearned, False), FLOOR: self._empty, "named": self._plain,
        }  # fmt: skip
        places, observed = makers[attack](method, concept, dose, named)
        read = [known for observation in observed if (known := observation.reads(concept)) is not None]
        return {
            "found": np.array([concept in observation.found for observation in observed], dtype=np.float64),
            "read": np.array(read, dtype=np.float64), "place": np.array(places, dtype=np.int64),
            "left_out": np.array(len(set(range(len(named))) - set(places))),
        }  # fmt: skip

    def _changed(self, method: str, concept: str, dose: float) -> Any:
        return nullcontext() if method == INTACT else self.pairs.changed("erase", method, concept, dose)

    def _plain(self, method: str, concept: str, dose: float, cases: list[Case]) -> tuple[list[int], list[Observation]]:
        return self._observed(method, concept, dose, list(enumerate(cases)))

    def _empty(self, method: str, concept: str, dose: float, cases: list[Case]) -> tuple[list[int], list[Observation]]:
        asked = [(place, replace(case, prompt="")) for place, case in enumerate(cases)]
        return self._observed(method, concept, dose, asked)

    def _paraphrased(
        self, method: str, concept: str, dose: float, cases: list[Case]
    ) -> tuple[list[int], list[Observation]]:
        asked = [
            (place, replace(case, prompt=text))
            for place, case in enumerate(cases)
            for text in paraphrases(case.prompt, concept, case.named | case.whole)
        ]
        return self._observed(method, concept, dose, asked)

    def _worded(
        self, method: str, concept: str, dose: float, cases: list[Case], before: bool = False
    ) -> tuple[list[int], list[Observation]]:
        def search() -> str:
            problems = self.pairs.methods.problems
            prompts, samples = problems.pictured(concept, 4) if before else problems.unedited(concept)
            with self._changed(method, concept, dose):
                return adversarial_words(self.pairs.methods.pipe, prompts, samples, attack)[0]

        attack = replace(self.config.words, before=before)
        words = self.pairs.cache.json(_searched(method, concept, dose, attack), search)
        asked = [
            (place, replace(case, prompt=said_with([case.prompt], [words], before)[0]))
            for place, case in enumerate(cases)
        ]
        return self._observed(method, concept, dose, asked)

    def _worded_before(
        self, method: str, concept: str, dose: float, cases: list[Case]
    ) -> tuple[list[int], list[Observation]]:
        return self._worded(method, concept, dose, cases, before=True)

    def _embedded(
        self, method: str, concept: str, dose: float, cases: list[Case]
    ) -> tuple[list[int], list[Observation]]:
        pipe, samples = self.pairs.methods.pipe, self.pairs.methods.problems.wanted(concept)
        with self._changed(method, concept, dose):
            embedding, _ = inverted(pipe, samples, self.config.inversion)
            with said(pipe, embedding):
                # Of a prompt that is not there any more only the noise is left.
                observed = self.pairs.evaluators.observe(cases)
        return list(range(len(cases))), observed

    def _relearned(
        self, own: bool, method: str, concept: str, dose: float, cases: list[Case]
    ) -> tuple[list[int], list[Observation]]:
        methods = self.pairs.methods
        _, samples = methods.problems.pictured(concept, 8, own)
        with self._changed(method, concept, dose):
            trained = relearned(methods.pipe, shuffled(samples, self.draws[1]), self.config.relearning)
            with applied(methods.denoiser, trained):
                return list(range(len(cases))), self.pairs.evaluators.observe(cases)

    def _observed(
        self, method: str, concept: str, dose: float, asked: Sequence[tuple[int, Case]]
    ) -> tuple[list[int], list[Observation]]:
        """The places of the cases that fit, and what the model shows of them with the edit in place."""
        fitting = [(place, case) for place, case in asked if fits(self.pairs.methods.pipe, case.prompt)]
        cases = [case for _, case in fitting]
        with self._changed(method, concept, dose):
            observe = self.pairs.evaluators.intact if method == INTACT else self.pairs.evaluators.observe
            return [place for place, _ in fitting], observe(cases)


def _rate(outcome: Arrays) -> float:
    return float(outcome["found"].mean()) if len(outcome["found"]) else 0.0


def _searched(method: str, concept: str, dose: float, attack: Attack) -> tuple[str | float, ...]:
    """Under which the words are kept that were searched for a concept."""
    return ("erase", method, concept, dose, "words", attack.name)

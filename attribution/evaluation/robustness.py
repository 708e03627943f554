"""Edits against other prompts: the same thing said otherwise, and words that were searched to bring a concept back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gazetteer.attribution.attacks.words import Attack, NoAttackError, adversarial_words, said_with
from gazetteer.attribution.evaluation.cases import REPORT, Case
from gazetteer.attribution.evaluation.outcomes import Outcome, compare
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.summaries import summary
from gazetteer.attribution.objective.prompts import fits, names, paraphrases


def paraphrased(
    pairs: PicturePairs, goal: str, method: str, concepts: Sequence[str], fraction: float, draws: tuple[int, int]
) -> dict[str, Any]:
    """`summary` on other ways to say the prompts that name each concept.

    Args:
        draws: resamples and seed of the bootstrap.

    Returns:
        with ``left_out``, how many prompts the tokenizer would cut. The ways to say one prompt are painted from one
        noise and count as one case to the intervals.
    """
    outcomes, drawn, left = [], list[list[int]](), 0
    for concept in concepts:
        named = [case for case in pairs.relevant(concept, REPORT) if concept in case.named]
        said = [
            replace(case, prompt=text)
            for case in named
            for text in paraphrases(case.prompt, concept, case.named | case.whole)
        ]
        cases = [case for case in said if fits(pairs.methods.pipe, case.prompt)]
        key: tuple[str | float, ...] = (goal, method, concept, fraction, "paraphrased")
        outcomes.append(pairs.once(key, partial(pairs.edited, goal, method, concept, fraction, cases)))
        drawn.append([case.seed for case in cases])
        left += len(said) - len(cases)
    return {**summary(goal, outcomes, *draws, drawn=drawn), "left_out": left}


def attacked(
    pairs: PicturePairs, method: str, concepts: Sequence[str], fraction: float, attack: Attack, draws: tuple[int, int]
) -> dict[str, Any]:
    """With words optimised against each edit on other prompts: found edited ÷ found intact without the words.

    ``words``: empty where none beat none; ``left_out``: cases whose prompt has no room for them; ``names_it``: concepts
    that their words name, which is no attack. Where the attack does not fit the pipeline, ``skipped`` says why: it must
    not end an evaluation of hours.
    """
    words: dict[str, str] = {}

    def with_words(prompt: str, more: str) -> str:
        return said_with([prompt], [more], attack.before)[0]

    def make(concept: str, cases: Sequence[Case], said: Sequence[Case]) -> Outcome:
        intact = pairs.evaluators.intact(cases)
        with pairs.changed("erase", method, concept, fraction):
            edited = pairs.evaluators.observe(said)
        return compare("erase", concept, cases, intact, edited, pairs.near(concept))

    def search(concept: str) -> str:
        problems = pairs.methods.problems
        prompts, samples = problems.pictured(concept, 4) if attack.before else problems.unedited(concept)
        with pairs.changed("erase", method, concept, fraction):
            return adversarial_words(pairs.methods.pipe, prompts, samples, attack)[0]

    outcomes, left = [], 0
    for concept in concepts:
        key = ("erase", method, concept, fraction)
        try:
            words[concept] = pairs.cache.json((*key, "words", attack.name), partial(search, concept))
        except NoAttackError as error:
            return {"skipped": str(error)}
        named = [case for case in pairs.relevant(concept, REPORT) if concept in case.named]
        said = {case: replace(case, prompt=with_words(case.prompt, words[concept])) for case in named}
        cases = [case for case in named if fits(pairs.methods.pipe, said[case].prompt)]
        make_it = partial(make, concept, cases, [said[case] for case in cases])
        outcomes.append(pairs.once((*key, "attacked", attack.name), make_it))
        left += len(named) - len(cases)
    named_by = [concept for concept in concepts if names(words[concept], concept)]
    return {**summary("erase", outcomes, *draws), "words": words, "left_out": left, "names_it": named_by}

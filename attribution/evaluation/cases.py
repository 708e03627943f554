"""Which prompts are painted with which seeds, and which of them edits may be made from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gazetteer.attribution.objective.prompts import names, parted
from gazetteer.labeling.vocabulary.concepts import Vocabulary

CHOOSE, REPORT = 0, 1
"""The halves of the cases: operating points are chosen on one and reported on the other."""


@dataclass(frozen=True)
class Case:
    """One prompt with its seed, the concepts it names, and the half it belongs to (CHOOSE or REPORT).

    `sought`: picked because the intact model misses the concept there, so that it says nothing of how often it does.
    `whole`: by which other names than their own the prompt names concepts, of those that `paraphrases` must not part.
    """

    prompt: str
    seed: int
    named: frozenset[str]
    half: int
    sought: bool = False
    whole: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Prompts:
    """The prompts of an evaluation.

    Attributes:
        cases: what is painted.
        source: prompts that edits may be made from, with the concepts that each names; none of them is reported on.
    """

    cases: list[Case]
    source: dict[str, frozenset[str]]

    @property
    def shared(self) -> int:
        """How many of the source doses are chosen on too, as there were too few prompts for a pool of its own."""
        return len(self.source.keys() & {case.prompt for case in self.cases if case.half == CHOOSE})


def showing(cases: Sequence[Case], concept: str) -> list[Case]:
    """Those that name a concept: of the half that is reported on, or where none does of the other."""
    named = [case for case in cases if concept in case.named]
    return [case for case in named if case.half == REPORT] or named


def said_of(shown: Sequence[Case], prompts: Prompts, concept: str) -> str:
    """Of which prompts pictures of a concept are, in words; empty of those that are reported on, and of none."""
    if not shown or shown[0].half == REPORT:
        return ""
    made = " and edits made from" if shown[0].prompt in prompts.source else ""
    return f"pictures are of prompts that doses are chosen on{made}: no prompt that is reported on names {concept}"


def named_in(cases: Sequence[Case], half: int) -> set[str]:
    """The concepts that the prompts of a half name."""
    return set().union(*(case.named for case in cases if case.half == half))


def part_prompts(prompts: Sequence[str], vocabulary: Vocabulary, words: Sequence[str], pool: int, seed: int) -> Prompts:
    """`pool` cases, and as many other prompts to make edits from.

    Where there are too few prompts for that, those of the choosing half serve for the concepts that lack one
    (`Prompts.shared`).

    Args:
        words, seed: see `draw_cases`.
    """
    known = sorted(vocabulary.concepts)
    drawn = draw_cases(prompts, vocabulary, known, words, pool, seed)
    asked = {case.prompt for case in drawn}
    others = draw_cases([p for p in prompts if p not in asked], vocabulary, known, words, pool, seed)
    named: frozenset[str] = frozenset().union(*(case.named for case in others))
    others += [case for case in drawn if case.half == CHOOSE and case.named - named]
    return Prompts(drawn, {case.prompt: case.named for case in others})


def draw_cases(
    prompts: Sequence[str], vocabulary: Vocabulary, known: Sequence[str], words: Sequence[str], wanted: int, seed: int
) -> list[Case]:
    """The first prompts that name a concept or word, taken in turns for each, alternately in the two halves.

    Args:
        known, words: the concepts, and the words for the style of a picture.
        wanted: how many prompts.
        seed: of the run; the cases' own lie far from the seeds that edits are made from, so that no noise is seen
            twice.
    """
    named = [
        (p, (frozenset(vocabulary.mentioned(p)) & frozenset(known)) | {w for w in words if names(p, w)})
        for p in dict.fromkeys(prompts)
    ]
    queues = {c: [row for row in named if c in row[1]] for c in (*known, *words)}
    taken: dict[str, frozenset[str]] = {}
    while len(taken) < wanted and any(queues.values()):
        for queue in queues.values():
            while queue and queue[0][0] in taken:
                queue.pop(0)
            # Two at a time: one for each half, so that both name every concept.
            for row in queue[:2]:
                taken[row[0]] = frozenset(row[1])
            del queue[:2]
    rows = list(taken.items())[: max(2, wanted)]
    first = seed + 1_000_000
    return [
        Case(p, first + i, has, CHOOSE if i % 2 == 0 else REPORT, whole=_whole(p, has, vocabulary))
        for i, (p, has) in enumerate(rows)
    ]


def _whole(prompt: str, named: Collection[str], vocabulary: Vocabulary) -> frozenset[str]:
    spans = vocabulary.words(prompt)
    return frozenset(way for word, start, end in spans if word in named and parted(way := prompt[start:end]))

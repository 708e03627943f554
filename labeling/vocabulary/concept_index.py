"""The rule by which different words count as one concept, and the concepts that a text names.

A phrase stands for a concept when it is the concept's name or one of its synonyms, however it is written
(`gazetteer.labeling.vocabulary.words`). A name stands for its own concept only, whatever lists it as a synonym; a
synonym of two concepts stands for neither; and what is listed counts before what is listed only in other words, such
as "hotdog" for "hot dog". Where phrases overlap in a text the longest counts, the first of equals: "hot dog" names no
dog.

A phrase may end in a possessive 's ("Van Gogh's style" names van gogh). A compound with hyphens that stands for no
concept as a whole is read as its words written apart would be: "a tree-lined road" names tree, and "t-shirt" names
shirt where no t-shirt is listed. That "sun-dried" then names sun costs a question, which a detector answers with no;
a thing that is shown and not asked for would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.vocabulary.words import forms, owner_of, parts, stand_in, words

Words = tuple[str, ...]


class ConceptIndex:
    """Finds the concepts that a text names."""

    def __init__(self, concepts: Mapping[str, Sequence[str]]) -> None:
        """concepts: name -> synonyms."""
        names = {name: (name,) for name in concepts}
        # Later entries win. A plural may be another concept's name, so plurals come before names as they stand.
        self._concept: dict[Words, str] = {
            **_unambiguous(concepts, _as_one_word),
            **_unambiguous(names, _as_one_word),
            **_unambiguous(concepts, _in_words),
            **{form: name for name in concepts for form in _in_words(name)},
            **{parts(words(name)): name for name in concepts},
            **{tuple(words(name)): name for name in concepts},
        }
        self._concept.pop((), None)
        self._longest = max((len(form) for form in self._concept), default=0)

    def concept(self, phrase: str) -> str | None:
        """The concept a phrase stands for, or None."""
        return self._named_by(words(phrase))

    def find(self, text: str) -> tuple[set[str], list[Words], list[Words]]:
        """The concepts that a text names, the words that name them, and the runs of words between those (`parts`)."""
        tokens = words(text)
        split = parts(tokens)
        concepts: set[str] = set()
        named: list[Words] = []
        rest: list[Words] = []
        start = 0
        for concept, first, end in self.places(tokens):
            concepts.add(concept)
            named.append(split[first:end])
            rest.append(split[start:first])
            start = end
        return concepts, named, [*rest, split[start:]]

    def places(self, tokens: Sequence[str]) -> list[tuple[str, int, int]]:
        """The concepts that a text's words name, each with where among their `parts` it begins and ends, in order."""
        units = [unit for token in tokens for unit in self._units(token)]
        starts = [0, *accumulate(len(parts([unit])) for unit in units)]
        spans_of: list[tuple[str, int, int]] = []
        place = 0
        while place < len(units):
            for length in range(min(self._longest, len(units) - place), 0, -1):
                concept = self._named_by(units[place : place + length])
                if concept is not None:
                    spans_of.append((concept, starts[place], starts[place + length]))
                    place += length
                    break
            else:
                place += 1
        return spans_of

    def _units(self, token: str) -> tuple[str, ...]:
        """A word, or its parts where it has hyphens and stands for no concept as a whole."""
        return (token,) if self._named_by([token]) is not None else parts([token])

    def _named_by(self, tokens: Sequence[str]) -> str | None:
        split = parts(tokens)
        written = [tuple(tokens), split, *([("".join(split),)] if len(tokens) == 1 else [])]
        concept = next((self._concept[form] for form in written if form in self._concept), None)
        if concept is None and tokens and (owner := owner_of(tokens[-1])) != tokens[-1]:
            return self._named_by([*tokens[:-1], owner])
        return concept


def require_distinct(concepts: Collection[str], source: str) -> None:
    """InputError where two concepts are one by the rule, or one has no letter and no digit.

    source: what holds them, as the sentence calls it.
    """
    seen: dict[Words, str] = {}
    for concept in concepts:
        key = parts(words(concept))
        if not key:
            raise InputError(f"{source} names {concept!r}, which has no letter and no digit.")
        if key in seen:
            raise InputError(f"{source} names one concept twice: {seen[key]!r} and {concept!r}.")
        seen[key] = concept


def written_alike(concepts: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of concepts that are one by the rule, or of which one is the other's plural, as both are named."""
    first: dict[Words, str] = {}
    pairs = []
    for concept in concepts:
        if (known := first.setdefault(parts(words(concept)), concept)) != concept:
            pairs.append((known, concept))
    for concept in concepts:
        plurals = {first[form] for form in _in_words(concept) if form in first} - {first[parts(words(concept))]}
        pairs += [(concept, plural) for plural in sorted(plurals)]
    return pairs


def occurs(phrase: str, runs: Iterable[Sequence[str]]) -> bool:
    """Whether a phrase, or its plural, stands inside one of the runs of words, perhaps as a possessive."""
    return any(stand_in(form, parts(run)) for run in runs for form in _in_words(phrase))


def _in_words(phrase: str) -> list[Words]:
    """The words of the phrase and of its plural, those with hyphens taken apart."""
    return [parts(words(form)) for form in forms(phrase)]


def _as_one_word(phrase: str) -> list[Words]:
    """The phrase and its plural without their spaces, where they have some."""
    return [tuple(words("".join(form))) for form in _in_words(phrase) if len(form) > 1]


def _unambiguous(phrases: Mapping[str, Sequence[str]], written: Callable[[str], list[Words]]) -> dict[Words, str]:
    """What one concept alone may be called, among its phrases."""
    claims: dict[Words, set[str]] = {}
    for name, synonyms in phrases.items():
        for phrase in synonyms:
            for form in written(phrase):
                claims.setdefault(form, set()).add(name)
    return {form: min(names) for form, names in claims.items() if len(names) == 1}

"""The names of a data set's categories as concepts: the first synonym, and more of them where that is of several."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.picture import concept_name


def concept_names(names: Iterable[str]) -> dict[str, str]:
    """Every name with the concept that it is: by `concept_name`, its first synonym.

    Where names of different synonyms begin with the same one, as "screen, crt screen" and "screen, silver screen" of
    ADE20K's full list do, they are different things: the others follow in brackets, "screen (crt screen)". Names that
    differ in case and spaces alone are one.
    """
    synonyms = {name: _synonyms(name) for name in names}
    several: dict[str, set[tuple[str, ...]]] = {}
    for own in synonyms.values():
        several.setdefault(own[0], set()).add(own)
    return {
        name: f"{own[0]} ({' or '.join(own[1:])})" if len(several[own[0]]) > 1 and own[1:] else own[0]
        for name, own in synonyms.items()
    }


def require_once(concepts: Iterable[tuple[object, str]], source: str) -> None:
    """InputError where two categories of one list have one name: their masks would be one concept's.

    Args:
        concepts: the number of each category and its concept.
        source: what holds them, as the sentence calls it.
    """
    number: dict[str, object] = {}
    for own, concept in concepts:
        if concept in number:
            raise InputError(
                f"{source} gives the categories {number[concept]!r} and {own!r} one name, {concept!r}; give each its "
                "own, or make them one."
            )
        number[concept] = own


def _synonyms(name: str) -> tuple[str, ...]:
    first, *others = map(concept_name, re.split("[,;]", unicodedata.normalize("NFKC", name)))
    return (first, *dict.fromkeys(other for other in others if other and other != first))

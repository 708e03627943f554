"""Which of the concepts that there are a person means, and what to say where it is none of them."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex
from gazetteer.labeling.vocabulary.synonyms import Synonyms


class UnknownConceptError(InputError):
    """A concept that is none of those there are."""


def meant(asked: Sequence[str], known: Collection[str], sentence: str) -> list[str]:
    """The known concepts that are asked for, each as it stands or by the rule of `ConceptIndex`: "Dogs" is dog.

    Args:
        sentence: begins what is said of an unknown one, with a place for it: ``"The layout knows no {!r}"``.

    Raises:
        UnknownConceptError: something that is none of the known ones; it ends with what was meant, if something is
            close.
    """
    if set(asked) <= set(known):
        return list(dict.fromkeys(asked))
    index = ConceptIndex(dict.fromkeys(sorted(known), ()))
    concept_of = {phrase: phrase if phrase in known else index.concept(phrase) for phrase in asked}
    unknown = next((phrase for phrase, concept in concept_of.items() if concept is None), None)
    if unknown is not None:  # the empty phrase is unknown too
        raise UnknownConceptError(f"{sentence.format(unknown)}; {nearest(unknown, known)}")
    return list(dict.fromkeys(concept for concept in concept_of.values() if concept is not None))


def stands_for(names: Iterable[str], known: Collection[str], synonyms: Synonyms | None = None) -> dict[str, str]:
    """What each of the names is called among the known concepts, by the rule of `ConceptIndex`; itself where it is none
    of them.

    synonyms: the known concepts' other names.
    """
    index = ConceptIndex({concept: (synonyms or {}).get(concept, ()) for concept in sorted(known)})
    return {name: name if name in known else index.concept(name) or name for name in names}


def nearest(wrong: Any, known: Iterable[Any], most: int = 20) -> str:
    """What was meant, if something is close, and what there is, as the end of a sentence."""
    if isinstance(wrong, numbers.Real):
        stored = sorted(known)
        close = [min(stored, key=lambda value: abs(value - wrong))] if stored else []
    else:
        stored = sorted(map(str, known))
        close = difflib.get_close_matches(str(wrong).lower(), stored, 1, 0.6)
    listed = ", ".join(map(str, stored[:most])) + (f" and {len(stored) - most} more" if len(stored) > most else "")
    return f"{f'did you mean {close[0]}? ' if close else ''}it has: {listed or 'none'}."

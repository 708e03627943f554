"""The names of given pictures' concepts, held to the rule of words by which captions name them."""

from __future__ import annotations

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.open import GivenSet
from gazetteer.labeling.vocabulary.concept_index import written_alike


def require_names(given: GivenSet) -> None:
    """InputError where two concepts of given pictures are one word, which by the words of a caption are one.

    ADE20K's list is not refused for it: its full one has shanty beside shanties, each with a number of its
    own, and `notes_of` says so.
    """
    if given.config.kind != "ade20k" and (pairs := written_alike(given.concepts)):
        first, second = pairs[0]
        raise InputError(
            f"pictures.{given.config.kind} {given.config.path} has the concepts {first!r} and {second!r}, which are "
            "one by the rule of names: each would count as absent where the other is. Give both one name, or leave "
            "one out by pictures.concepts."
        )


def notes_of(given: GivenSet) -> list[str]:
    """Sentences about what of given pictures is not used, and what is doubtful."""
    notes = list(given.notes)
    if given.config.kind == "ade20k" and (pairs := written_alike(given.concepts)):
        first, second = pairs[0]
        notes.append(f"{len(pairs)} pairs of ADE20K's classes are one word, as {first!r} and {second!r}; all are kept.")
    return notes

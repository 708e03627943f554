"""Lists of concepts with their synonyms, and the rule by which different words count as one concept.

A phrase stands for a concept when it is the concept's name or one of its synonyms, in the singular or the plural, or
with spaces for its hyphens. A name stands for its own concept only, whatever lists it as a synonym; a synonym of two
concepts stands for neither. Where phrases overlap in a text the longest counts, the first of equals: "hot dog" names
no dog.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError

FOLDER = Path(__file__).parent / "lists"
BUILT_IN = ("coco", "lvis")


def read_list(path: str) -> dict[str, tuple[str, ...]]:
    """Concept -> its synonyms, in the order of the file.

    Args:
        path: one of BUILT_IN, or a text file: a line a concept, synonyms after commas, ``#`` begins a comment.

    Raises:
        InputError: no such list, not UTF-8, or a name twice.
    """
    file = FOLDER / f"{path}.txt" if path in BUILT_IN else Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The list of concepts {path} cannot be read ({error}); accepted: {', '.join(BUILT_IN)}, or a text file "
            "with a concept a line and its synonyms after commas."
        ) from error
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, *synonyms = [" ".join(part.lower().split()) for part in line.partition("#")[0].split(",")]
        if name in found:
            raise InputError(f"The list of concepts {path} holds {name!r} twice.")
        if name:
            found[name] = tuple(part for part in dict.fromkeys(synonyms) if part and part != name)
    if not found:
        raise InputError(f"The list of concepts {path} is empty.")
    return found


class ConceptIndex:
    """Finds the concepts that a text names."""

    def __init__(self, concepts: Mapping[str, Sequence[str]]) -> None:
        """concepts: name -> synonyms."""
        self._concept: dict[tuple[str, ...], str] = {}
        claims: dict[tuple[str, ...], set[str]] = {}
        for name, synonyms in concepts.items():
            for synonym in synonyms:
                for form in _spellings(synonym):
                    claims.setdefault(form, set()).add(name)
        self._concept = {form: min(names) for form, names in claims.items() if len(names) == 1}
        # A plural may be another concept's name, so names come last and singulars after plurals.
        self._concept |= {form: name for name in concepts for form in reversed(_spellings(name))}
        self._concept |= {tuple(words(name)): name for name in concepts}
        self._longest = max((len(form) for form in self._concept), default=0)

    def concept(self, phrase: str) -> str | None:
        """The concept a phrase stands for, or None."""
        return self._concept.get(tuple(words(phrase)))

    def find(self, text: str) -> tuple[set[str], list[tuple[str, ...]], list[tuple[str, ...]]]:
        """The concepts that a text names, the words that name them, and the runs of words between those."""
        tokens = words(text)
        found: set[str] = set()
        named: list[tuple[str, ...]] = []
        rest: list[tuple[str, ...]] = []
        place = start = 0
        while place < len(tokens):
            length = next(
                (n for n in range(self._longest, 0, -1) if tuple(tokens[place : place + n]) in self._concept), 0
            )
            if length:
                named.append(tuple(tokens[place : place + length]))
                found.add(self._concept[named[-1]])
                rest.append(tuple(tokens[start:place]))
                start = place + length
            place += length or 1
        return found, named, [*rest, tuple(tokens[start:])]


def words(text: str) -> list[str]:
    """Words of a text in lower case, hyphens and apostrophes kept inside them."""
    return re.findall(r"[a-z0-9'-]+", text.lower())


@cache
def forms(concept: str) -> tuple[str, ...]:
    """A concept's singular and plural."""
    return concept, _engine().plural_noun(concept)


def occurs(phrase: str, runs: Iterable[Sequence[str]]) -> bool:
    """Whether a phrase, or its plural, stands inside one of the runs of words."""
    return any(f" {' '.join(words(form))} " in f" {' '.join(run)} " for run in runs for form in forms(phrase))


def _spellings(phrase: str) -> list[tuple[str, ...]]:
    """The phrase's words, its plural's, and both with spaces for hyphens."""
    spelled = [*forms(phrase), *(form.replace("-", " ") for form in forms(phrase))]
    return list(dict.fromkeys(tuple(words(form)) for form in spelled))


@cache
def _engine() -> Any:
    with _types_unchecked():
        import inflect

        return inflect.engine()


@contextmanager
def _types_unchecked() -> Iterator[None]:
    """Without typeguard, which compiles inflect anew when that is imported: two seconds of every worker's start."""
    try:
        import typeguard
    except ImportError:  # an inflect that does without
        yield
        return
    checked = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked

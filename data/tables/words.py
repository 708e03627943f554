"""The words of a prompt as the text stream of a model holds them: the column `words` of the images table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class PromptWord:
    """A run of places of the text stream that hold tokens of one word, or of none of the words (None).

    Attributes:
        first, last: 0-based; a place that no run of a prompt holds is padding.
    """

    word: str | None
    first: int
    last: int


def rows_of_words(words: Iterable[PromptWord]) -> list[dict[str, Any]]:
    """As the images table holds them."""
    return [asdict(run) for run in words]


def words_of(row: Mapping[str, Any], places: int) -> tuple[PromptWord, ...]:
    """The words of a row of the images table, whose text stream has so many places.

    Raises:
        InputError: they are not known, or lie beyond the stream.
    """
    if row["words"] is None:
        raise InputError(f"Of the prompt of {row['image_id']} it is not known where its words are (images.words).")
    words = words_said(row)
    require_inside(row["image_id"], words, places)
    return words


def words_said(row: Mapping[str, Any]) -> tuple[PromptWord, ...]:
    """The words of a row of the images table as it states them; none where they are not known."""
    return tuple(PromptWord(**run) for run in row.get("words") or ())


def require_inside(image_id: str, words: Iterable[PromptWord], places: int) -> None:
    """InputError where a prompt has words beyond its text stream."""
    if any(not 0 <= run.first <= run.last < places for run in words):
        raise InputError(f"The prompt of {image_id} has words beyond the {places} places of the text stream.")

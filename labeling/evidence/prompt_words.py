"""Words of a prompt in the place of masks: the text stream is a picture one row high, and its pixels are tokens.

So the evidence of a text-stream site is that of any site: a word's segments are the runs of places that its tokens
take (one run an encoder), the grid is 1 x places, and shuffling prompts keeps every word where it stands. What the
model reads of a prompt is known of every prompt, so every word of a run was asked of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.tables.words import PromptWord, require_inside, words_of
from gazetteer.diffusion.denoisers.words import PromptTokens
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, join_concepts, prompt_numbers
from gazetteer.labeling.evidence.shard_masks import ImageEvidenceInput


def prompt_words(spans: Sequence[tuple[str, int, int]], tokens: PromptTokens) -> tuple[PromptWord, ...]:
    """Where the words of a prompt stand in the text stream.

    Args:
        spans: the words with the characters (from, to) that they take (`Vocabulary.words`), in order.
    """
    owner = [_owner(span, spans) if read else None for span, read in zip(tokens.spans, tokens.read, strict=True)]
    runs = groupby(range(len(owner)), key=owner.__getitem__)
    places = [(number, list(run)) for number, run in runs if number is not None]
    return tuple(
        PromptWord(spans[number][0] if number >= 0 else None, run[0], run[-1]) for number, run in places
    )  # fmt: skip


def _owner(token: tuple[int, int], spans: Sequence[tuple[str, int, int]]) -> int:
    """The number of the word that a token stands for a part of; -1: none, as of signs and the ends of a text."""
    return next((i for i, (_, start, end) in enumerate(spans) if token[0] < end and token[1] > start), -1)


def in_words(picture: ImageEvidenceInput, places: int) -> ImageEvidenceInput:
    """A picture's part in the evidence of its text stream of so many places: its words instead of its segments.

    Raises:
        InputError: it has words beyond the stream.
    """
    require_inside(picture.image_id, picture.words, places)
    segments = [(run.word, _mask(run, places)) for run in picture.words if run.word is not None]
    asked = tuple(sorted({word for word, _ in segments}))
    return replace(picture, size=(1, places), asked=asked, segments=segments, pooled=None)


def read_words(images: pa.Table, places: int) -> ConceptMaps:
    """Where the words are in the text stream of every prompt, as `concept_maps.read_concepts` says it of pictures.

    Args:
        images: schemas.IMAGES.
        places: of the text stream.
    Raises:
        InputError: a picture of which it is not known, or that has words beyond the stream.
    """
    rows = sorted(images.select(["image_id", "prompt", "split", "words"]).to_pylist(), key=lambda row: row["image_id"])
    names = sorted({run["word"] for row in rows for run in row["words"] or () if run["word"] is not None})
    index = {name: number for number, name in enumerate(names)}
    read = np.zeros((len(rows), places), np.bool_)
    owners: list[tuple[int, int]] = []
    pixels: list[NDArray[np.int32]] = []
    for i, row in enumerate(rows):
        unions: dict[int, NDArray[np.bool_]] = {}
        for run in words_of(row, places):
            mask = _mask(run, places)[0]
            read[i] |= mask
            if run.word is not None:
                unions[index[run.word]] = unions.get(index[run.word], np.zeros(places, np.bool_)) | mask
        owners += [(i, number) for number in sorted(unions)]
        pixels += [unions[number].astype(np.int32) for number in sorted(unions)]
    union = np.array(owners, np.int64).reshape(-1, 2)
    return ConceptMaps(
        tuple(row["image_id"] for row in rows), tuple(names), np.array([row["split"] for row in rows], np.str_),
        np.tile(np.array([[1, places]], np.int64), (len(rows), 1)), np.ones((len(rows), len(names)), np.bool_),
        union[:, 0], union[:, 1], {(1, places): np.array(pixels, np.int32).reshape(-1, places)}, read,
        prompt_numbers([row["prompt"] for row in rows]),
    )  # fmt: skip


def join_words(parts: Sequence[ConceptMaps]) -> ConceptMaps:
    """The words of all prompts from those of disjoint sets of them."""
    joined = join_concepts(parts)
    ids = np.array([name for part in parts for name in part.image_ids], np.str_)
    read = np.concatenate([part.read for part in parts if part.read is not None])
    return replace(joined, asked=np.ones_like(joined.asked), read=read[np.argsort(ids, kind="stable")])


def _mask(run: PromptWord, places: int) -> NDArray[np.bool_]:
    mask = np.zeros((1, places), np.bool_)
    mask[0, run.first : run.last + 1] = True
    return mask

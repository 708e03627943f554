"""Which concepts to look for in a picture: a fixed list, the prompt's nouns, what a tagger sees, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named, with_source
from gazetteer.data.core.settings import Effect, Natural, OneOf, setting, settings
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex, occurs, require_distinct
from gazetteer.labeling.vocabulary.concept_list import BUILT_IN, read_list
from gazetteer.labeling.vocabulary.nouns import TAGGERS, hanta_nouns
from gazetteer.labeling.vocabulary.words import parts, spaced, tidy, word_spans, words

Nouns = Callable[[str], Sequence[str]]
ASK = ("all", "prompt", "both")
NOT_THINGS = (
    "background", "bottom", "center", "close-up", "foreground", "front", "image", "left", "middle", "photo",
    "photograph", "picture", "right", "shot", "side", "style", "top", "view",
)  # fmt: skip
"""Nouns that speak of the picture rather than of something in it."""


@settings("vocabulary")
class VocabularyConfig:
    """What the detector is asked for."""

    concepts: tuple[str, ...] = setting(
        Effect.SEGMENTS,
        "Words or phrases, singular, in any script; taken in lower case (`gazetteer.labeling.vocabulary.words`).",
        default=(),
    )
    path: str = setting(
        Effect.SEGMENTS,
        "More of them: ``coco``, ``lvis``, or a text file with a concept a line, synonyms after commas.",
        default="",
        path=True,
        names=BUILT_IN,
    )
    ask: Annotated[str, OneOf(ASK)] = setting(
        Effect.SEGMENTS,
        "``all`` asks every concept of every picture; ``prompt`` only those the prompt names; ``both`` asks "
        "every concept of the list, and the nouns of the prompt beside them.",
        default="all",
    )
    nouns: str = setting(
        Effect.SEGMENTS,
        "For words outside the list, ``hanta`` (a part-of-speech tagger) or ``module:function`` that gives "
        "the nouns of a prompt (str -> list of str), with ``ask`` prompt or both; empty looks for the listed "
        "concepts only.",
        default="",
        kind=with_source,
    )
    tagger: str = setting(
        Effect.SEGMENTS,
        "``module:function`` that gives the tags of a picture (uint8 [H, W, 3] -> list of str), such as RAM; "
        "its tags are asked like the prompt's nouns. Called with one picture at a time.",
        default="",
        kind=with_source,
    )
    ignore: tuple[str, ...] = setting(Effect.SEGMENTS, "Nouns and tags that are never asked.", default=NOT_THINGS)
    per_caption: Natural = setting(
        Effect.SEGMENTS,
        "Concepts a caption of the detector holds at most; 0: all of them. A detector sees a caption as a "
        "whole, so a concept's score depends on its companions; with 1 it has none. Concepts that together "
        "are more than the detector reads are asked one by one, whatever this is.",
        default=0,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", tuple(map(tidy, self.concepts)))
        bad = [concept for concept in self.concepts if not concept or "." in concept]
        if bad:
            raise InputError(f"vocabulary.concepts must be words or phrases without full stops; wrong: {bad[:3]}.")
        require_distinct(self.concepts, "vocabulary.concepts")
        if not (self.concepts or self.path or self.nouns or self.tagger):
            raise InputError("vocabulary.concepts, path, nouns and tagger are all empty: there is nothing to look for.")
        vain = [name for name in ("nouns", "tagger") if getattr(self, name)]
        if vain and self.ask == "all":
            raise InputError(
                f"vocabulary.{vain[0]} is of no use with ask=all, which asks the listed concepts only; "
                "set vocabulary.ask=both, or prompt."
            )


class Vocabulary:
    """Answers, for each prompt and picture, which concepts to ask and which of them the prompt names."""

    def __init__(self, config: VocabularyConfig) -> None:
        """Raises InputError when the list cannot be read, or `config.nouns` or `config.tagger` not be imported."""
        self.config = config
        listed = read_list(config.path) if config.path else {}
        self.concepts: tuple[str, ...] = tuple(dict.fromkeys((*config.concepts, *listed)))
        require_distinct(self.concepts, "The vocabulary")
        self._index = ConceptIndex({concept: listed.get(concept, ()) for concept in self.concepts})
        self._base = () if config.ask == "prompt" else tuple(sorted(self.concepts))
        self._in_base = frozenset(self._base)
        self._ignored = {parts(words(phrase)) for phrase in config.ignore}
        self._nouns: Nouns | None = None
        if config.nouns:
            known = config.nouns in TAGGERS
            self._nouns = hanta_nouns if known else import_named(config.nouns, "vocabulary.nouns", takes="a prompt")
        self._tags: Any = None
        if config.tagger:
            self._tags = import_named(config.tagger, "vocabulary.tagger", takes="a picture")

    @property
    def base(self) -> tuple[str, ...]:
        """Concepts asked of every picture of a run, so that their absence counts everywhere."""
        return self._base

    def asked(self, prompt: str, picture: NDArray[np.uint8] | None = None) -> tuple[str, ...]:
        """The concepts to look for in this prompt's picture, uint8 [H, W, 3], sorted."""
        if self.config.ask == "all":
            return self.base
        tags = self._tags(picture) if self._tags is not None and picture is not None else ()
        return tuple(sorted({*self.base, *self.mentioned(prompt), *self._merged(tags)}))

    def captions(self, asked: Sequence[str]) -> list[tuple[str, ...]]:
        """The asked concepts in groups that share no caption.

        Concepts asked of every picture come first and by themselves: what else a prompt or a picture brings up
        has no part in their scores.
        """
        base = [concept for concept in asked if concept in self._in_base]
        rest = [concept for concept in asked if concept not in self._in_base]
        size = self.config.per_caption or max(1, len(asked))
        return [tuple(part[start : start + size]) for part in (base, rest) for start in range(0, len(part), size)]

    def mentioned(self, prompt: str) -> tuple[str, ...]:
        """The concepts the prompt names, sorted: of the list, synonyms and plurals included, and its other nouns.

        A noun inside a listed phrase is no concept of its own: with "fire hydrant" in the list a prompt that has one
        names no fire.
        """
        concepts, inside, rest = self._index.find(prompt)
        if self._nouns is not None:
            nouns = self._merged(self._nouns(prompt))
            concepts |= {noun for noun in nouns if occurs(noun, rest) or not occurs(noun, inside)}
        return tuple(sorted(concepts))

    def words(self, prompt: str) -> list[tuple[str, int, int]]:
        """The words of a prompt with the characters (from, to) where they stand, in order; no two share one.

        What names a listed concept is one word, called by that concept however it is written; every other word is
        called as it stands, in lower case. Of a compound with hyphens whose part names a concept, every part is a word.
        """
        whole, apart = word_spans(prompt), word_spans(prompt, apart=True)
        span_of = [span for span in apart for _ in parts(words(span[0]))]
        named: list[tuple[str, int, int]] = []
        for concept, first, end in self._index.places(words(prompt)):
            start = span_of[first][1]
            if not named or start >= named[-1][2]:
                named.append((concept, start, span_of[end - 1][2]))
        for spans in (whole, apart):
            named += [span for span in spans if not any(span[1] < end and start < span[2] for _, start, end in named)]
        return sorted(named, key=lambda span: span[1])

    def _merged(self, phrases: Sequence[str]) -> set[str]:
        """Nouns or tags as concepts: one that stands for a listed concept becomes that one.

        Others are written with spaces, so that "t-shirt" and "t shirt" are one; what has no letter and no digit is
        nobody's name and left out.
        """
        cleaned = {spaced(phrase.replace(".", " ")) for phrase in phrases}
        named = {parts(words(phrase)): self._index.concept(phrase) or phrase for phrase in sorted(cleaned)}
        return {concept for key, concept in named.items() if key and key not in self._ignored}

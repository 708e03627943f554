"""Which concepts to look for in a picture: a fixed list, the prompt's nouns, or both."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from data.errors import InputError

Nouns = Callable[[str], Sequence[str]]
ASK = ("all", "prompt", "both")


@dataclass(frozen=True)
class VocabularyConfig:
    """What the detector is asked for.

    Attributes:
        concepts: words or phrases in lower case, singular.
        ask: ``all`` asks every concept of every picture; ``prompt`` only those the prompt names;
            ``both`` asks every concept of the list, and the nouns of the prompt beside them.
        nouns: ``module:function`` that gives the nouns of a prompt (str -> list of str), for words
            outside the list; empty looks for the listed concepts only.
    """

    concepts: tuple[str, ...]
    ask: str = "all"
    nouns: str = ""

    def __post_init__(self) -> None:
        if self.ask not in ASK:
            raise InputError(f"vocabulary.ask is {self.ask!r}; accepted: {', '.join(ASK)}.")
        bad = [c for c in self.concepts if c != c.strip().lower() or not c or "." in c]
        if bad:
            raise InputError(f"vocabulary.concepts must be lower-case phrases without full stops; wrong: {bad[:3]}.")
        if len(set(self.concepts)) != len(self.concepts):
            raise InputError("vocabulary.concepts names a concept twice.")
        if not self.concepts and not self.nouns:
            raise InputError("vocabulary.concepts is empty and vocabulary.nouns is not set: nothing to look for.")


class Vocabulary:
    """Answers, for each prompt, which concepts to ask and which of them the prompt names."""

    def __init__(self, config: VocabularyConfig) -> None:
        """Raises InputError when `config.nouns` cannot be imported."""
        self.config = config
        self._nouns = _import_callable(config.nouns) if config.nouns else None

    @property
    def base(self) -> tuple[str, ...]:
        """Concepts asked of every picture of a run, so that their absence counts everywhere."""
        return () if self.config.ask == "prompt" else tuple(sorted(self.config.concepts))

    def asked(self, prompt: str) -> tuple[str, ...]:
        """The concepts to look for in this prompt's picture, sorted."""
        return tuple(sorted({*self.base, *self.mentioned(prompt)}) if self.config.ask != "all" else self.base)

    def mentioned(self, prompt: str) -> tuple[str, ...]:
        """The concepts the prompt names, sorted: of the list, plurals included, and its other nouns."""
        text = " ".join(re.findall(r"[a-z0-9'-]+", prompt.lower()))
        found = {c for c in self.config.concepts if any(f" {form} " in f" {text} " for form in forms(c))}
        if self._nouns is not None:
            found |= {noun.strip().lower().replace(".", "") for noun in self._nouns(prompt)} - {""}
        return tuple(sorted(found))


@cache
def forms(concept: str) -> tuple[str, ...]:
    """A concept's singular and plural."""
    return concept, _engine().plural_noun(concept)


@cache
def _engine() -> Any:
    import inflect

    return inflect.engine()


def _import_callable(name: str) -> Nouns:
    import importlib

    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"vocabulary.nouns {name!r} cannot be imported as module:function: {error}") from error

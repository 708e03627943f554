"""Prompts that a language model reads inside instructions: which of its tokens are the prompt's, and of which words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.words import NOTHING, PromptTokens, require_offsets

_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands where a prompt would: no template writes it."""


@dataclass(frozen=True)
class Instructions:
    """How a language model reads prompts: each inside a longer text, in a stream of so many places.

    Tokens of the text around a prompt are not read: they stand for no word, and are the same in every picture.

    Attributes:
        tokenizer: of that text.
        whole: the text that is made of a prompt.
        places: of the stream.
        skipped: tokens at the text's start that the stream leaves out.
        padded: the tokenizer fills the text up to `places`; else the stream ends with the longest prompt of a call.
        marked: the tokenizer adds marks of its own where the text begins and ends.
    """

    tokenizer: Any
    whole: Callable[[str], str]
    places: int
    skipped: int = 0
    padded: bool = True
    marked: bool = True

    def tokens(self, prompt: str) -> PromptTokens:
        """What a prompt is in the stream.

        Raises:
            InputError: a tokenizer that does not say where its tokens lie, or a text that does not hold the prompt as
                it is.
        """
        require_offsets(self.tokenizer)
        text, start, end = self._around(prompt)
        if text[start:end] != prompt:
            raise InputError(
                f"Which words the tokens of {prompt!r} stand for is not known: the instructions that its model reads "
                "do not hold it as it is; set generation.streams=[image]."
            )
        filling = {"padding": "max_length"} if self.padded else {}
        spans = self._spans(text, start, end, **self._fitting, **filling)
        spans += [NOTHING] * (self.places - len(spans))
        return PromptTokens(tuple(spans), tuple(span != NOTHING for span in spans), cut=not self.padded)

    def unread(self, prompt: str) -> int:
        """Tokens of a prompt, or of what the instructions make of it, that find no place in the stream."""
        text, start, end = self._around(prompt)
        if not getattr(self.tokenizer, "is_fast", False):  # counted part by part, and no token crosses their borders
            before, after = (self._count(part, False) for part in (text[:start], text[end:]))
            whole = self._count(text, self.marked)
            return max(0, min(whole - before, whole - self.skipped - self.places) - after)
        every, fitting = (self._spans(text, start, end, **how) for how in ({}, self._fitting))
        return sum(span != NOTHING for span in every) - sum(span != NOTHING for span in fitting)

    @property
    def _fitting(self) -> dict[str, Any]:
        return {"max_length": self.places + self.skipped, "truncation": True}

    def _around(self, prompt: str) -> tuple[str, int, int]:
        """The text of a prompt, and where in it (from, to) lies what is not the same of every prompt."""
        text, (before, _, after) = self.whole(prompt), self.whole(_MARK).partition(_MARK)
        start, end = len(before), len(text) - len(after)
        return (text, start, end) if text == before + text[start:end] + after else (text, 0, len(text))

    def _spans(self, text: str, start: int, end: int, **how: Any) -> list[tuple[int, int]]:
        """Of every token that is not skipped the part between two places, counted from the first."""
        made = self.tokenizer(text, add_special_tokens=self.marked, return_offsets_mapping=True, verbose=False, **how)
        return [_within(int(a) - start, int(b) - start, end - start) for a, b in made["offset_mapping"]][self.skipped :]

    def _count(self, text: str, marked: bool) -> int:
        return len(self.tokenizer(text, add_special_tokens=marked, verbose=False).input_ids)


class Instructed:
    """For adapters of pipelines whose text stream holds a prompt and instructions around it."""

    @abstractmethod
    def instructions(self, pipe: Any, branch: str = "cond") -> Instructions:
        """How the prompts of a branch are read, as the pipeline is called by default."""

    def tokens(self, pipe: Any, prompt: str, branch: str = "cond") -> PromptTokens:
        """The prompt's, told from those of the instructions."""
        return self.instructions(pipe, branch).tokens(prompt)

    def unread(self, pipe: Any, prompt: str) -> int:
        """The instructions take room from the prompt."""
        return self.instructions(pipe).unread(prompt)


def chat(tokenizer: Any, **how: Any) -> Callable[[str], str]:
    """The text that a tokenizer's template makes of a prompt that a user says, before the model's answer."""

    def whole(prompt: str) -> str:
        said: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, **how
        )
        return said

    return whole


def _within(start: int, end: int, length: int) -> tuple[int, int]:
    """The part of a span that lies in a text of a length, or `NOTHING`."""
    start, end = max(start, 0), min(end, length)
    return (start, end) if start < end else NOTHING

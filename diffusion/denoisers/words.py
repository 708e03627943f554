"""The text stream word by word: which characters of a prompt stand at each of its places, and which are padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError

NOTHING = (0, 0)


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as a denoiser's text stream holds it.

    Attributes:
        spans: of every place of the stream the characters of the prompt (from, to) that its token stands for;
            `NOTHING` where it stands for none, as at the ends of a text.
        read: whether the place holds a token of the prompt, its ends included, and neither padding nor instructions
            around it.
        cut: whether a call's stream ends with its longest prompt, so that it may hold fewer places than these.
    """

    spans: tuple[tuple[int, int], ...]
    read: tuple[bool, ...]
    cut: bool = False

    def __add__(self, other: PromptTokens) -> PromptTokens:
        """Two encoders' texts, one after the other."""
        return PromptTokens(self.spans + other.spans, self.read + other.read)

    def read_of(self, held: int) -> tuple[bool, ...]:
        """`read` of each of the places that a text stream holds.

        Raises:
            InputError: it holds others than its pipeline's encoders fill.
        """
        filled = len(self.read)
        if held == filled or (self.cut and held < filled and not any(self.read[held:])):
            return self.read[:held]
        raise InputError(
            f"The text stream holds {held} places where the encoders fill {filled}: the pipeline was called with "
            "another max_sequence_length than its own, or something is beside the prompt that cannot be told apart."
        )


def padding(places: int) -> PromptTokens:
    """Places that hold nothing."""
    return PromptTokens((NOTHING,) * places, (False,) * places)


def unread(tokenizer: Any, text: str, most: int) -> int:
    """How many of a text's tokens are left out where so many are read, the marks of its ends among them."""
    return max(0, len(tokenizer(text, truncation=False, verbose=False).input_ids) - most)


def require_offsets(tokenizer: Any) -> None:
    """InputError for a tokenizer that does not say where its tokens lie in a text."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"The model's {type(tokenizer).__name__} does not say which words its tokens belong to; install the "
            "tokenizers package's form of it (a tokenizer.json), or set generation.streams=[image]."
        )


def tokens_of(tokenizer: Any, prompt: str, places: int) -> PromptTokens:
    """What a tokenizer of CLIP's or T5's kind makes of a prompt, filled up or cut to so many places.

    Raises:
        InputError: a tokenizer that does not say where its tokens lie in the prompt.
    """
    require_offsets(tokenizer)
    made = tokenizer(prompt, padding="max_length", max_length=places, truncation=True, return_offsets_mapping=True)
    spans = tuple((int(start), int(end)) for start, end in made["offset_mapping"])
    return PromptTokens(spans, tuple(bool(mark) for mark in made["attention_mask"]))

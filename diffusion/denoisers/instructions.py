"""Prompts that a language model reads inside instructions: which of its tokens are the prompt's, and of which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.words import NOTHING, PromptTokens, require_offsets

_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands where a prompt would: no template writes it."""


def tokens_inside(
    tokenizer: Any, whole: Callable[[str], str], prompt: str, places: int, *, skipped: int = 0, padded: bool = True
) -> PromptTokens:
    """What a prompt is in a stream of `places` that holds the tokens of a longer text.

    Tokens of the text around the prompt are not read: they stand for no word, and are the same in every picture.

    Args:
        whole: the text that is made of a prompt.
        skipped: tokens at its start that the stream leaves out.
        padded: the tokenizer fills the text up to `places`; else the stream ends with the longest prompt of a call.

    Raises:
        InputError: a tokenizer that does not say where its tokens lie, or a text that does not hold the prompt as is.
    """
    require_offsets(tokenizer)
    start, text = whole(_MARK).find(_MARK), whole(prompt)
    if start < 0 or text[start : start + len(prompt)] != prompt:
        raise InputError(
            f"Which words the tokens of {prompt!r} stand for is not known: the instructions that its model reads do "
            "not hold it as it is; set generation.streams=[image]."
        )
    filling = {"padding": "max_length"} if padded else {}
    made = tokenizer(text, max_length=places + skipped, truncation=True, return_offsets_mapping=True, **filling)
    every = tokenizer(text, return_offsets_mapping=True, verbose=False)
    spans, whole_spans = (
        [_within(int(a) - start, int(b) - start, len(prompt)) for a, b in tokens["offset_mapping"]][skipped:]
        for tokens in (made, every)
    )
    missing = sum(span != NOTHING for span in whole_spans) - sum(span != NOTHING for span in spans)
    spans += [NOTHING] * (places - len(spans))
    return PromptTokens(tuple(spans), tuple(span != NOTHING for span in spans), cut=not padded, missing=missing)


def _within(start: int, end: int, length: int) -> tuple[int, int]:
    """The part of a span that lies in a text of a length, or `NOTHING`."""
    start, end = max(start, 0), min(end, length)
    return (start, end) if start < end else NOTHING

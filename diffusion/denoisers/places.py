"""Which places of a running pipeline's text stream hold tokens of its prompts, branch by branch and row by row."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.registry import adapter_of

PROMPTS = {"cond": "prompt", "uncond": "negative_prompt"}
"""What pipelines call the prompts of a branch; with _2 and _3 behind it those of further encoders."""


class TextPlaces:
    """The prompts that a pipeline is called with, as it tells them its own check of what it is called with."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._told = pipe, dict[str, Any]()
        self._known: dict[tuple[str, str, int], tuple[bool, ...]] = {}

    def check_inputs(self, usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In the place of the pipeline's own, which a generation begins with."""
        self._told = dict(inspect.signature(usual).bind(*args, **kwargs).arguments)
        return usual(*args, **kwargs)

    def read(self, branch: str, rows: int, held: int) -> Tensor:
        """Whether each of the `held` places of a branch's rows holds a token of its prompt, bool [rows, held].

        Raises:
            InputError: the pipeline was called without prompts, or the encoders do not fill so many places.
        """
        prompts = self._prompts(branch)
        if len(prompts) == 1:  # of the other branch, for all pictures
            prompts = prompts * rows
        if rows % len(prompts):
            raise InputError(
                f"The text stream holds {rows} rows of {len(prompts)} prompts, which cannot be told apart."
            )
        places = torch.tensor([self._places(prompt, branch, held) for prompt in prompts])
        return places.repeat_interleave(rows // len(prompts), dim=0)

    def _places(self, prompt: str, branch: str, held: int) -> tuple[bool, ...]:
        key = (prompt, branch, held)
        if key not in self._known:
            text = adapter_of(self._pipe).tokens(self._pipe, prompt, branch)
            self._known[key] = replace(text, cut=True).read_of(held)  # fewer by the call's max_sequence_length
        return self._known[key]

    def _prompts(self, branch: str) -> list[str]:
        name = PROMPTS[branch]
        first, second, third = (self._told.get(own) for own in (name, f"{name}_2", f"{name}_3"))
        if first is None and (self._told.get("prompt") is None or self._told.get(f"{name}_embeds") is not None):
            raise InputError(
                f"Which places of the text stream hold words is known of prompts alone, and this {self._kind} was "
                f"called without a {name} in words; call it with prompts (not {name}_embeds) to edit its text stream."
            )
        first = first or ""
        if third is not None and {str(second or first), str(third)} != {str(first)}:
            raise InputError(
                f"This {self._kind} was called with several prompts a picture, which stand in its text stream at the "
                f"same places; leave {name}_2 and {name}_3 out to edit its text stream."
            )
        text = second or first  # FLUX.1 gives the first to CLIP, of which its stream holds nothing
        return [text] if isinstance(text, str) else list(text)

    @property
    def _kind(self) -> str:
        return type(self._pipe).__name__

"""What comes out of a pipeline: pictures, which of them its safety checker blacked out, and prompts cut short."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.images import to_uint8
from gazetteer.diffusion.denoisers.registry import adapter_of

log = logging.getLogger(__name__)


def blacked_out(output: Any) -> list[int]:
    """The places (0-based) of the pictures that the pipeline's safety checker painted over."""
    return [place for place, unsafe in enumerate(getattr(output, "nsfw_content_detected", None) or ()) if unsafe]


def pictures_of(output: Any) -> NDArray[np.uint8]:
    """The pictures of a pipeline's output of type ``np``: uint8 [images, height, width, 3].

    Raises:
        InputError: the safety checker blacked some out, so that they do not show what the model drew.
    """
    expect_all_drawn(output)
    return to_uint8(output.images)


def expect_all_drawn(output: Any) -> None:
    """Raise InputError when the safety checker blacked out pictures of a pipeline's output."""
    if hidden := blacked_out(output):
        raise InputError(
            f"The model's safety checker blacked out {len(hidden)} of {len(output.images)} pictures, which then show "
            "nothing of what was drawn; set model.safety_checker=false to measure the model without it."
        )


def tokens_cut(pipe: Any, prompts: Sequence[str]) -> list[int]:
    """How many tokens of each prompt the text encoders do not read; 0 for one that fits.

    CLIP reads its tokenizer's `model_max_length` (77), other encoders as many as the pipeline's own
    ``max_sequence_length`` lets them. Of encoders that stand side by side (SDXL) the one that reads least counts; where
    a long one stands beside CLIP (SD 3, FLUX, HunyuanDiT), CLIP gives the gist and the long one decides. Instructions
    that a language model reads around the prompt take room from it.
    """
    adapter = adapter_of(pipe)
    return [adapter.unread(pipe, prompt) for prompt in prompts]


def warn_of_cut(pipe: Any, prompts: Sequence[str]) -> list[int]:
    """`tokens_cut`, with one warning in words when there are any; for pictures whose rows nobody counts later."""
    cut = tokens_cut(pipe, prompts)
    longer = [prompt for prompt, tokens in zip(prompts, cut, strict=True) if tokens]
    if longer:
        log.warning(
            "%d of %d prompts are drawn from their beginning alone, the text encoder reads no further; "
            "the first of them: %.60r, of which %d tokens are not read.",
            len(longer), len(prompts), longer[0], cut[list(prompts).index(longer[0])],
        )  # fmt: skip
    return cut

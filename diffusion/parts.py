"""Whether a pipeline gives its U-Net the inputs that an edit expects: one of each picture, or with guidance two.

Others stack three and more (InstructPix2Pix, perturbed attention), and a hook on the U-Net sees the batch alone. How
many pictures are drawn, the sampler's step is told.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from gazetteer.data.core.errors import InputError


@contextmanager
def checked_parts(pipe: Any, calls: list[tuple[int, int]]) -> Iterator[None]:
    """While open, each step of the pipeline's sampler checks, and forgets, the U-Net calls noted in `calls`.

    So a wrong batch is refused after the first edited step, before there is a picture.

    Args:
        calls: of each U-Net call (inputs in its batch, inputs there should be of one picture).

    Raises:
        InputError: at a step: the batch was another one; the sentence says which.
    """
    scheduler = pipe.scheduler
    usual, own = scheduler.step, "step" in vars(scheduler)

    @functools.wraps(usual)
    def step(*args: Any, **kwargs: Any) -> Any:
        sample = kwargs["sample"] if "sample" in kwargs else args[2] if len(args) > 2 else None
        noted = list(calls)
        calls.clear()
        for inputs, parts in noted:
            if isinstance(sample, Tensor) and inputs != parts * len(sample):
                raise InputError(
                    f"{type(pipe).__name__} gives the U-Net {inputs} inputs for {len(sample)} pictures; edits know "
                    f"pipelines that give {'an unconditional and a conditional one' if parts == 2 else 'one'} of each."
                )
        return usual(*args, **kwargs)

    scheduler.step = step
    try:
        yield
    finally:
        if own:
            scheduler.step = usual
        else:
            del scheduler.step

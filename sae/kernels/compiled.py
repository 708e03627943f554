"""torch.compile as an option: where it cannot be used, the plain function does the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from gazetteer.data.core.errors import first_line

R = TypeVar("R")


def compiled_or_plain(function: Callable[..., R]) -> Callable[..., R]:
    """`function` through torch.compile, and the function itself from the first failure on.

    For functions that change nothing but what they return: the failed call is simply made again.
    """
    fast: Callable[..., R] | None = torch.compile(function)

    def call(*args: Any, **keywords: Any) -> R:
        nonlocal fast
        if fast is not None:
            try:
                return fast(*args, **keywords)
            except Exception as error:  # compilers fail in too many ways to list
                fast = None
                result = function(*args, **keywords)  # where this fails too, it was not the compiler
                reason = first_line(error)
                warnings.warn(f"sae.train.compile is left out, for the compiler failed: {reason}", stacklevel=2)
                return result
        return function(*args, **keywords)

    return call

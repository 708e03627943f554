"""What libraries tell their own developers, kept from users who can do nothing about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_notices() -> Iterator[None]:
    """Building a network: diffusers warns of an import that its own Chroma makes (``FluxPosEmbed``)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*FluxPosEmbed", category=FutureWarning)
        yield

"""What a folder or the hub asks of a publication, and what it must not write over there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from gazetteer.data.core.errors import InputError


class Publication(Protocol):
    """Files with their bytes, in the order in which they shall arrive."""

    @property
    def names(self) -> list[str]:
        """Every name."""

    @property
    def own(self) -> Mapping[str, Callable[[bytes], bool]]:
        """Files that a person may have written under the same name, and how ours are known."""

    def read(self, name: str) -> bytes:
        """The bytes of one file."""


def require_no_persons(publication: Publication, where: str, read: Callable[[str], bytes | None]) -> None:
    """InputError where a file that would be written over is a person's own.

    Args:
        read: the bytes of a name that lies in `where`, or None.
    """
    for name, is_ours in publication.own.items():
        present = read(name) if name in publication.names else None
        if present is not None and present != publication.read(name) and not (is_ours(present) or _is_stub(present)):
            raise InputError(
                f"{where}/{name} is not what gazetteer publish left there, and would be written over; move it "
                "away, or publish elsewhere."
            )


def _is_stub(text: bytes) -> bool:
    """Whether a card holds a header alone, as the hub puts it into a repository that its own page makes."""
    return re.fullmatch(rb"---\s*?\n(?:(?!---).*\n)*---\s*", text) is not None

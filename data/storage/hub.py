"""A published run in a data set repository of the Hugging Face hub: read only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from gazetteer.data.core.errors import InputError
from gazetteer.data.storage.remote import RemoteFiles

_PART = r"[\w-][\w.-]{0,95}"
_ADDRESS = re.compile(rf"hf:(?:(?://)?datasets/|(?!//))({_PART}/{_PART})(@[\w.-]+)?")


def hub_url(address: str) -> str:
    """The fsspec URL of ``hf:owner/name[@revision]``; ``hf://datasets/owner/name`` says the same.

    Raises:
        InputError: no address of a data set.
    """
    match = _ADDRESS.fullmatch(address.rstrip("/"))
    if match is None:
        raise InputError(f"{address} names no data set of the hub; accepted: hf:owner/name or hf:owner/name@revision.")
    return f"hf://datasets/{match[1]}{match[2] or ''}"


class HubFiles(RemoteFiles):
    """Files of a repository; nothing is written, since every file would be a commit of its own."""

    def replace(self, name: str, content: bytes) -> NoReturn:
        """Refused."""
        self._refuse()

    def create(self, name: str, content: bytes, after: Sequence[str] = ()) -> NoReturn:
        """Refused."""
        self._refuse()

    def copy(self, name: str, to: str) -> NoReturn:
        """Refused."""
        self._refuse()

    def remove(self, name: str) -> NoReturn:
        """Refused."""
        self._refuse()

    def remove_tree(self) -> NoReturn:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{self.root} is on the Hugging Face hub, where runs are only read; write to a folder, and "
            "gazetteer publish brings it there."
        )

"""Plans of a run: written once, sealed, bound to the run, and checked against their own digests when they are read."""

from __future__ import annotations

from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.identity import Identity
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.storage.files import Files

_ATTEMPTS = 5

GROUPS = "groups"
"""The plan that says which shards of a finished run are put together (`gazetteer compact`)."""


class Plans:
    """The plans of the run whose files are given."""

    def __init__(self, files: Files, identity: Identity) -> None:
        self._files, self._identity = files, identity

    def write(self, name: str, plan: dict[str, Any]) -> dict[str, Any]:
        """Put a plan at ``_meta/<name>.json``, sealed and bound to this run, unless one is there; the one that counts.

        Raises:
            InputError: as `read`.
        """
        content = seal({**plan, "run": self._identity.digest()})
        for _ in range(_ATTEMPTS):
            self._files.create(f"_meta/{name}.json", content)
            written = self.read(name)
            if written is not None:
                return written
        raise GazetteerError(f"{self._files.root}/_meta/{name}.json comes and goes; is somebody deleting the run?")

    def read(self, name: str) -> dict[str, Any] | None:
        """The plan at ``_meta/<name>.json``, or None when none was written.

        Raises:
            InputError: it is not what was written (cut short, emptied, edited), or was written for another run.
        """
        path = f"_meta/{name}.json"
        try:
            plan = unseal(self._files.read(path))
        except FileNotFoundError:
            return None
        if plan is None:
            raise InputError(
                f"{self._files.root}/{path} is not the plan that was written: it was edited or damaged; remove it: the "
                "same plan is made again from the same settings."
            )
        if plan.pop("run", None) != self._identity.digest():
            raise InputError(f"{self._files.root}/{path} is the plan of a run with other settings; remove it.")
        return plan

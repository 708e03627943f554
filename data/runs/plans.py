"""Plans of a run: written once, sealed, bound to the run, and checked against their own digests when they are read."""

from __future__ import annotations

import re
from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.identity import Identity
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.storage.files import Files

_ATTEMPTS = 5
PLAN = re.compile(r"(plan|retry)-\d+\.json")
"""What plans of pictures are called, below ``_meta``."""

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
        content = self._sealed(plan)
        for _ in range(_ATTEMPTS):
            self._files.create(plan_path(name), content)
            written = self.read(name)
            if written is not None:
                return written
        raise GazetteerError(f"{self._files.root}/_meta/{name}.json comes and goes; is somebody deleting the run?")

    def read(self, name: str) -> dict[str, Any] | None:
        """The plan at ``_meta/<name>.json``, or None when none was written.

        Raises:
            InputError: it is not what was written (cut short, emptied, edited), or was written for another run.
        """
        plan, problem = self.checked(name)
        if problem is None:
            return plan
        root, path = self._files.root, plan_path(name)
        if name == GROUPS:
            raise InputError(
                f"{root}/{path} {problem}; run gazetteer compact {root}, which writes it anew from the records of the "
                "groups."
            )
        raise InputError(f"{root}/{path} {problem}; {what_to_do(name, root)}.")

    def checked(self, name: str) -> tuple[dict[str, Any] | None, str | None]:
        """The plan, or None when none was written or it cannot be relied on; and in that case why."""
        try:
            plan = unseal(self._files.read(plan_path(name)))
        except FileNotFoundError:
            return None, None
        if plan is None:
            return None, "is not the plan that was written: it was edited or damaged"
        if plan.pop("run", None) != self._identity.digest():
            return None, "is the plan of a run with other settings"
        return plan, None

    def replace(self, name: str, plan: dict[str, Any]) -> None:
        """Put a plan at ``_meta/<name>.json``, sealed and bound to this run, over what is there."""
        self._files.replace(plan_path(name), self._sealed(plan))

    def _sealed(self, plan: dict[str, Any]) -> bytes:
        return seal({**plan, "run": self._identity.digest()})


def what_to_do(name: str, root: str) -> str:
    """What to do about the plan of pictures `name` of the run at `root` that is damaged."""
    if name.startswith("retry-"):
        return (
            f"remove it: what was tried again stays, and gazetteer label {root} --retry-failed tries what still fails"
        )
    return f"remove it, then gazetteer label {root} makes the same plan again, and no picture"


def plan_path(name: str) -> str:
    """Where a plan lies in the run."""
    return f"_meta/{name}.json"

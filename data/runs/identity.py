"""What a run was started with: written once, and compared by everything that is written later."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.publish import json_bytes
from gazetteer.data.runs.relabelled import LABELS, label_settings
from gazetteer.data.storage.files import Files
from gazetteer.data.storage.place import warn_of_columns

RUN = "_meta/run.json"
COMMITS = "_meta/commits"
_PLANS = ("plan-", "retry-")
_OF_TABLES = ("relabelled.json", "groups.json")
"""What else is known of a run's shards and tables; void with them."""
_OURS = ("_meta", "lost+found")
_ATTEMPTS = 5
Lock = Callable[[], AbstractContextManager[None]]


class Identity:
    """The fingerprint of the run whose files are given: a flat dict of settings and digests.

    Args:
        presumed: takes the place of what ``run.json`` says.
    """

    def __init__(self, files: Files, presumed: dict[str, Any] | None = None) -> None:
        self._files, self._presumed = files, presumed
        self._claimed: dict[str, Any] | None = None
        self._begun: dict[str, Any] | None = None

    def fingerprint(self) -> dict[str, Any] | None:
        """What the run was started with, or None when none was started.

        Raises:
            InputError: ``run.json`` is damaged.
        """
        if self._presumed is not None:
            return self._presumed
        try:
            value = json.loads(self._files.read(RUN))
            json.dumps(value, allow_nan=False)  # no digest can be made of what is no number
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InputError(
                f"{self._files.root}/{RUN} is corrupt, and nothing else can be judged without it: bring it back from a "
                "copy, or start a new run in another folder."
            )
        return value

    def of_tables(self) -> dict[str, Any] | None:
        """What the final tables follow from: the same with the label settings of a later `gazetteer relabel`.

        Raises:
            InputError: ``run.json``, or the record of relabelling, is damaged.
        """
        begun, labels = self.fingerprint(), label_settings(self._files)
        if begun is None or labels is None:
            return begun
        return {**{key: value for key, value in begun.items() if not key.startswith(LABELS)}, **labels}

    def digest(self) -> str:
        """Names the run in everything that is recorded in it; empty when none was started."""
        fingerprint = self.fingerprint() if self._begun is None else self._begun
        return "" if fingerprint is None else digest_json(fingerprint)

    def claim(self, fingerprint: dict[str, Any], lock: Lock) -> None:
        """Start the run, or resume it if it was started with the same `fingerprint`.

        Until a first shard is committed other settings may be tried: the run then starts over, under its `lock`.

        Raises:
            InputError: shards were committed under another one (every differing key is named), or the folder holds
                something else than a run.
        """
        claimed = json.loads(json_bytes(fingerprint))
        for _ in range(_ATTEMPTS):
            recorded = self.of_tables()
            if recorded is None:
                self._require_nothing_else()
                if self._starts_afresh():
                    warn_of_columns(self._files.root)
                    self._files.create(RUN, json_bytes(claimed))
                else:
                    self._start_over(claimed, lock)
            elif _differing(recorded, claimed) and not self._files.names(COMMITS):
                self._start_over(claimed, lock)
            else:
                self._require_same(recorded, claimed)
                self._claimed, self._begun = claimed, self.fingerprint()
                return
        raise GazetteerError(f"{self._files.root}/{RUN} comes and goes; is somebody deleting the run?")

    def confirm(self) -> None:
        """InputError when the run is not any more the one that was claimed; for when its lock has been taken."""
        if self._claimed is not None:
            self._require_same(self.of_tables() or {}, self._claimed)

    def _start_over(self, fingerprint: dict[str, Any], lock: Lock) -> None:
        with lock():
            if not self._files.names(COMMITS):
                for name in self._files.names("_meta"):
                    if (name.startswith(_PLANS) and name.endswith(".json")) or name in _OF_TABLES:
                        self._files.remove(f"_meta/{name}")
                self._files.replace(RUN, json_bytes(fingerprint))

    def _starts_afresh(self) -> bool:
        return not any(name.startswith(_PLANS) for name in self._files.names("_meta"))

    def _require_nothing_else(self) -> None:
        """InputError when a run is about to be started among other files, which it might replace."""
        if self._files.names(COMMITS):
            raise InputError(
                f"{self._files.root} holds shards but no {RUN}, which says what they were made with: bring it back "
                "from a copy, or choose another folder."
            )
        here = [*self._files.names(""), *self._files.folders("")]
        others = sorted(name for name in here if name not in _OURS and not name.startswith("."))
        if others:
            raise InputError(
                f"{self._files.root} is neither empty nor a run: it holds {', '.join(others[:3])}"
                f"{' …' if len(others) > 3 else ''}; choose a new or empty folder."
            )

    def _require_same(self, recorded: dict[str, Any], fingerprint: dict[str, Any]) -> None:
        differing = _differing(recorded, fingerprint)
        if differing:
            changes = differences(recorded, fingerprint)
            other = "choose another folder, or go back to those settings."
            if of_labels_alone(recorded, fingerprint):  # its pictures, codes and segments would serve
                again = f"gazetteer relabel {self._files.root} --set …"
                other = f"choose another folder, go back to those settings, or let {again} make its tables again, once "
                other += "it is finished or where a relabelling was cut off."
            raise InputError(
                f"{self._files.root} was started with other settings ({changes}). "
                f"A changed config is a different run: {other}"
            )


def _differing(recorded: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> list[str]:
    """Keys by which two fingerprints differ; one that a side lacks differs even from a null on the other."""
    keys = sorted(fingerprint.keys() | recorded.keys())
    return [key for key in keys if (key in fingerprint, fingerprint.get(key)) != (key in recorded, recorded.get(key))]


def of_labels_alone(recorded: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> bool:
    """Whether two fingerprints differ, and in nothing but what the reduction alone reads."""
    differing = _differing(recorded, fingerprint)
    return bool(differing) and all(key.startswith(LABELS) for key in differing)


def differences(recorded: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> str:
    """Every key by which two fingerprints differ, with both values, as a person reads it."""
    return "; ".join(
        f"{key}: was {_shown(recorded, key)}, now {_shown(fingerprint, key)}"
        for key in _differing(recorded, fingerprint)
    )


def _shown(fingerprint: Mapping[str, Any], key: str) -> str:
    return repr(fingerprint[key]) if key in fingerprint else "absent"

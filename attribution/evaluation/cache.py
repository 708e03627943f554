"""What a long evaluation has measured so far, on disk: one file per result, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.digests import canonical_json, digest_bytes
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.files.own_files import claim_folder, says

Arrays = Mapping[str, NDArray[Any]]
Key = tuple[str | int | float, ...]


class ResultCache:
    """Results by key; without a folder they are kept as long as this object."""

    def __init__(self, folder: str | Path | None = None, settings: Mapping[str, Any] | None = None) -> None:
        """Open or begin.

        Args:
            folder: where results lie.
            settings: JSON-ready; what the results depend on.

        Raises:
            InputError: the folder holds results of other settings, or somebody else's files.
        """
        self.folder = Path(folder) if folder else None
        self._made: dict[Key, Any] = {}
        if self.folder is None:
            return
        said, file = json.loads(canonical_json(dict(settings or {}))), self.folder / "settings.json"
        claim_folder(self.folder, ours=says(file))
        if file.exists():
            known = _read_json(file)
            if not isinstance(known, dict):
                raise InputError(f"{file} is damaged; remove it and run again.")
            if other := sorted(key for key in said.keys() | known.keys() if said.get(key) != known.get(key)):
                raise InputError(
                    f"{self.folder} holds results of other settings ({', '.join(other)}); take another folder."
                )
        else:
            _write(file, json.dumps(said, indent=1, sort_keys=True).encode() + b"\n")

    def arrays(self, key: Key, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of a key, made where there are none; raises InputError for a damaged file."""
        if self.folder is None:
            return self._remembered(key, make)
        path = self._path(key, "npz")
        if not path.exists():
            made = make()
            content = BytesIO()
            np.savez_compressed(content, **made)  # type: ignore[arg-type]
            _write(path, content.getvalue())
            return made
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except Exception as error:  # zip, zlib, numpy's own header and its parser of Python: each has its own
            raise InputError(f"{path} is damaged; remove it and run again.") from error

    def known(self, key: Key) -> Any:
        """The JSON value of a key, None where there is none; nothing is written."""
        if self.folder is None:
            return self._made.get(key)
        return self.json(key, lambda: None) if self._path(key, "json").exists() else None

    def json(self, key: Key, make: Callable[[], Any]) -> Any:
        """The JSON value of a key, made where there is none; raises InputError for a damaged file."""
        if self.folder is None:
            return self._remembered(key, make)
        path = self._path(key, "json")
        if not path.exists():
            made = make()
            _write(path, json.dumps(made).encode())
            return made
        return _read_json(path)

    def _remembered(self, key: Key, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _path(self, key: Key, kind: str) -> Path:
        """A name that a person can read, made unique by the digest of the key."""
        assert self.folder is not None
        said = "-".join("".join(c if c.isalnum() or c == "." else "_" for c in str(part)) for part in key)
        return self.folder / f"{said[:80]}-{digest_bytes(canonical_json(list(key)).encode())[:8]}.{kind}"


def _write(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with write_errors(str(path), resumes=True):
        staged.write_bytes(content)
        staged.replace(path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged; remove it and run again.") from error

"""Notes and stars of features: one JSON file beside the run's records, written whole or not at all."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.open import open_files

FILE = "notes.json"
"""Below ``_meta`` of the run; no table knows of it."""
LONGEST = 10_000
"""Letters of a note."""


@dataclass(frozen=True)
class Note:
    """What a person wrote of a feature, and whether it is starred."""

    star: bool = False
    text: str = ""


class Notes:
    """All notes of a run, by the address of their feature: ``<site slug>/<number>``.

    They are read anew each time: another page may be open on the same run.
    """

    def __init__(self, run: RunFolder) -> None:
        """Raises InputError when the file is damaged: it is a person's work, and not written over."""
        self._run, self._lock = run, threading.Lock()
        self._read()

    def all(self) -> dict[str, dict[str, Any]]:
        """Every note, as plain values; InputError when the file is damaged."""
        return {key: asdict(note) for key, note in sorted(self._read().items())}

    def put(self, site: str, feature: int, note: Note) -> None:
        """Keep a note; an empty one without a star goes.

        Raises:
            InputError: too long a text, or the file was damaged meanwhile.
            GazetteerError: the file cannot be written.
        """
        if len(note.text) > LONGEST:
            raise InputError(f"A note has at most {LONGEST:,} letters; this one has {len(note.text):,}.")
        with self._lock, open_files(self._run.path).guard("notes"):
            notes = {**self._read(), f"{site}/{feature}": note}
            notes = {key: note for key, note in notes.items() if note != Note()}
            self._run.write_json(FILE, {key: asdict(note) for key, note in sorted(notes.items())})

    def _read(self) -> dict[str, Note]:
        return {key: _note(self._run, key, note) for key, note in _rows(self._run).items()}


def _rows(run: RunFolder) -> dict[str, Any]:
    return run.read_json(FILE) or {}


def _note(run: RunFolder, key: str, raw: Any) -> Note:
    try:
        note = Note(**raw)
    except TypeError:
        note = None
    if note is None or not isinstance(note.star, bool) or not isinstance(note.text, str):
        raise InputError(f"{run.path}/_meta/{FILE}: the note of {key} is damaged; put it right, or move the file away.")
    return note

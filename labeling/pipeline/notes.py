"""What a worker warns of, to be said where the run is driven: a worker's own output is seen nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

OURS = "gazetteer"
"""The logger above all of this project's."""


@contextmanager
def overheard() -> Iterator[list[str]]:
    """While open, collect the sentences of this project's warnings, each once, in their order."""
    notes: list[str] = []
    handler = _Collector(notes)
    logger = logging.getLogger(OURS)
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said not in self.notes:
            self.notes.append(said)

"""Logs for machines: one JSON object a line, the time in UTC, and what a record carries (`shard`, `stage`, …)."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from io import TextIOWrapper
from pathlib import Path

from gazetteer.data.core.files.regular import NotRegularError, local_path, require_regular
from gazetteer.data.runs.identity import RUN

log = logging.getLogger(__name__)

OURS = "gazetteer"
"""The logger above all of this project's."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON: `time`, `level`, `logger`, `message`, then every extra field of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in record.__dict__.items() if key not in _STANDARD and key[0] != "_"},
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return json.dumps(line, default=str, ensure_ascii=False)


@contextmanager
def logging_to(*targets: str | Path, own: Sequence[str] = ()) -> Iterator[None]:
    """While open, append what this project logs (from INFO on) to every target: a file, or ``-`` for stderr.

    Warnings also reach stderr as plain sentences. A log that cannot be written never ends a run: it is warned of.

    Args:
        own: more files, which nobody asked for; where they cannot be written nothing is said.
    """
    with ExitStack() as stack:
        for target in dict.fromkeys([*map(str, targets), *own]):
            handler: logging.Handler = (
                logging.StreamHandler(sys.stderr) if target == "-" else _File(target, target in map(str, targets))
            )
            handler.setFormatter(JsonLines())
            handler.addFilter(lambda record: record.name.partition(".")[0] == OURS)
            _install(stack, handler)
        if "-" not in map(str, targets):
            console = logging.StreamHandler(sys.stderr)
            console.setLevel(logging.WARNING)
            _install(stack, console)
        logger = logging.getLogger(OURS)
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.INFO)
        yield


def log_file(run: str | Path) -> list[str]:
    """Where a run keeps its own log: ``_meta/log.jsonl`` of a local folder; behind a URL, which cannot append, none."""
    folder = local_path(run)
    return [] if folder is None else [str(folder / "_meta" / "log.jsonl")]


class _File(logging.FileHandler):
    """Opens its file at the first record, and lets records go while that cannot be, as behind a link or in a pipe.

    A run's own opens once the run has begun: until then its folder may turn out to be somebody else's.
    """

    def __init__(self, path: str, asked: bool) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._silent = not asked
        self._of_run = not asked

    def _open(self) -> TextIOWrapper:
        if self._of_run and not Path(self.baseFilename).with_name(Path(RUN).name).exists():
            raise FileNotFoundError
        if Path(self.baseFilename).exists():
            require_regular(self.baseFilename)
        return open(self.baseFilename, "a", encoding="utf-8", opener=_no_link)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except (OSError, NotRegularError) as error:
            if not self._silent:
                self._silent = True
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                log.warning("The log %s cannot be written (%s); the work goes on without it.", self.baseFilename, why)


def _no_link(path: str, flags: int) -> int:
    """Open for a log: what a link in a run folder leads to is somebody else's file."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _install(stack: ExitStack, handler: logging.Handler) -> None:
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    stack.callback(handler.close)
    stack.callback(root.removeHandler, handler)

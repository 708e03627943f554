"""The `gazetteer` command: parse, carry out one verb behind the guard, return the exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Sequence

from gazetteer.jobs.cli.guard import guarded
from gazetteer.jobs.cli.parser import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Usage errors exit with 2, as argparse does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows its number
            stream.reconfigure(errors="backslashreplace")
    arguments = parser().parse_args(argv)
    _quiet_libraries()
    _end_gracefully()
    return guarded(arguments, arguments.action)


class _Terminated(KeyboardInterrupt):
    """Asked to end by a scheduler: the run is left as by Ctrl-C, and says so in progress.json."""

    signal = signal.SIGTERM


def _end_gracefully() -> None:
    """Let systemd, Slurm and Kubernetes, which send SIGTERM, end a run with its last words written."""

    def end(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def _quiet_libraries() -> None:
    """Model libraries report loading at length and phone home by default; neither belongs in this output."""
    defaults = {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(main())

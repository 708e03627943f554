"""The `gazetteer` command: parse, carry out one verb behind the guard, return the exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.cli.guard import guarded
from gazetteer.jobs.cli.parser import parser
from gazetteer.jobs.executors.stop import stopping


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Usage errors exit with 2, as argparse does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows its number
            stream.reconfigure(errors="backslashreplace")
    arguments = parser().parse_args(argv)
    _quiet_libraries()
    return guarded(arguments, _carry_out)


def _carry_out(arguments: argparse.Namespace) -> int:
    if getattr(arguments, "out", None) == "":  # which a verb may take for none, or for the present folder
        raise InputError("The name of what is to be written is empty (a variable that is not set?); name it.")
    with stopping():
        return int(arguments.action(arguments))


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

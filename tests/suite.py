"""The suite in two parts: side by side what minds nobody, then one by one what starts Ray (marked ``alone``).

``python tests/suite.py [-m MARKS] [--workers N] [pytest's arguments]``. Both parts always run; the exit code is that of
the first part that failed, or pytest's 5 when neither found a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

NOTHING = 5
"""Pytest's exit code when it ran no test."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("-m", dest="marks", default="", help="as pytest's")
    parser.add_argument("--workers", type=int, default=2, help="processes of the first part")
    arguments, others = parser.parse_known_args()
    marks = f"({arguments.marks}) and " if arguments.marks else ""
    # Processes that share the cores must not each start a thread for every core.
    shared = {"OMP_NUM_THREADS": "1"} | os.environ
    parts = {
        # A process that dies ends the part: replaced, it would leave the others waiting for its file for ever.
        "side by side": (
            [f"{marks}not alone", "-n", str(arguments.workers), "--dist", "loadfile", "--max-worker-restart", "0"],
            shared,
        ),
        "alone": ([f"{marks}alone", *([] if chosen(others) else files_with("mark.alone"))], dict(os.environ)),
    }
    codes = {}
    for name, (options, environment) in parts.items():
        command = [sys.executable, "-m", "pytest", "-m", *options, *others]
        codes[name] = subprocess.run(command, env=environment, check=False).returncode
    said = {0: "passed", NOTHING: "nothing to run"}
    print("; ".join(f"{name}: {said.get(code, f'FAILED (exit code {code})')}" for name, code in codes.items()))
    failed = [code for code in codes.values() if code not in said]
    return next(iter(failed), 0 if 0 in codes.values() else NOTHING)


def chosen(arguments: list[str]) -> bool:
    """Whether the arguments name files or folders to test."""
    return any(Path(word.split("::")[0]).exists() for word in arguments)


def files_with(text: str) -> list[str]:
    """The test files here that hold a text: others need not even be loaded."""
    return [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if text in path.read_text()]


if __name__ == "__main__":
    sys.exit(main())

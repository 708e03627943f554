"""The suite in two parts: what minds nobody in some processes, and beside them, one by one, what starts Ray.

``python tests/suite.py [-m MARKS] [--workers N] [pytest's arguments]``. What starts Ray is marked ``alone``; it mostly
waits for processes to come up and go, and leaves the cores to the others meanwhile. Both parts always run; the exit
code is that of the first part that failed, or pytest's 5 when neither found a test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NOTHING = 5
"""Pytest's exit code when it ran no test."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("-m", dest="marks", default="", help="as pytest's")
    parser.add_argument("--workers", type=int, default=2, help="processes of the first part")
    arguments, others = parser.parse_known_args()
    marks = f"({arguments.marks}) and " if arguments.marks else ""
    # A process that dies ends the part: replaced, it would leave the others waiting for its file for ever.
    spread = ["-n", str(arguments.workers), "--dist", "loadfile", "--max-worker-restart", "0"]
    parts = {
        "side by side": [f"{marks}not alone", *spread],
        "alone": [f"{marks}alone", *([] if chosen(others) else files_with("mark.alone"))],
    }
    codes = run({name: [sys.executable, "-m", "pytest", "-m", *options, *others] for name, options in parts.items()})
    said = {0: "passed", NOTHING: "nothing to run"}
    print("; ".join(f"{name}: {said.get(code, f'FAILED (exit code {code})')}" for name, code in codes.items()))
    failed = [code for code in codes.values() if code not in said]
    return next(iter(failed), 0 if 0 in codes.values() else NOTHING)


def run(commands: dict[str, list[str]]) -> dict[str, int]:
    """The exit codes of commands that run at once, by name; the first prints as it goes, the others when it is done."""
    # Processes that share the cores must not each start a thread for every core.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    first, *later = commands
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: open(Path(folder) / name, "w+b") for name in later}  # noqa: SIM115 - closed below
        started = {
            name: subprocess.Popen(commands[name], env=environment, stdout=output, stderr=subprocess.STDOUT)
            for name, output in outputs.items()
        }
        try:
            codes = {first: subprocess.run(commands[first], env=environment, check=False).returncode}
            for name, output in outputs.items():
                codes[name] = started[name].wait()
                output.seek(0)
                sys.stdout.flush()
                shutil.copyfileobj(output, sys.stdout.buffer)
        finally:
            for name, process in started.items():
                process.terminate()
                process.wait()
                outputs[name].close()
    return codes


def chosen(arguments: list[str]) -> bool:
    """Whether the arguments name files or folders to test."""
    return any(Path(word.split("::")[0]).exists() for word in arguments)


def files_with(text: str) -> list[str]:
    """The test files here that hold a text: others need not even be loaded."""
    return [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if text in path.read_text()]


if __name__ == "__main__":
    sys.exit(main())

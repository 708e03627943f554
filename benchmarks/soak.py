"""Kill a labelling job's driver and workers at random moments, resume it, and compare what comes out.

Every kill is a real SIGKILL of a real process: the driver, one of its workers, or all of them at once, as when a
machine loses power. A run that ends before enough kills were spent is compared and followed by another. Pictures
that were killed so often that they count as failed are tried again with --retry-failed, as an operator would.

Most kills come a random while after something more of the run was done, so that there is something to lose and the
run gets on; one in five comes at any moment, while processes start or models load as well as not. One start of the
driver sees several workers killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401

from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.evidence.counts import sum_evidence

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "images=240", "shard_size=2", "batch_size=2", "generation.steps=3", "generation.blocks=[mid_block.attentions.0]",
    "coverage.wanted=4", "labels.min_images=2", "labels.permutations=50", "labels.refine=100",
    "max_failed_fraction=1.0",
]  # fmt: skip
KINDS = {"driver": 2, "all": 2, "worker": 8}
"""What is killed, and how often in relation to each other."""
ANYWHERE = 0.2
"""Share of kills that do not wait for the run to get on."""
HANGS = 900.0
"""Seconds without anything done after which a run is said to hang."""
TABLES = ("images", "codes", "segments", "evidence")
FINAL = ("labels", "candidates", "features")
DONE, FAILED, PARTIAL = 0, 1, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="kill after up to so many more shards, plans or tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folder", help="where the runs go (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="gazetteer-soak-"))
    try:
        result = Soak(folder, arguments).run()
    finally:
        if not arguments.folder:
            shutil.rmtree(folder, ignore_errors=True)
    print(", ".join(f"{name} {value}" for name, value in result.items()))
    if arguments.json:
        print(json.dumps(result))


class Soak:
    """One undisturbed run, and disturbed ones until the kills are spent."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.kills, self.steps = folder, arguments.kills, arguments.steps
        self.settings = [*SMALL, f"workers={arguments.workers}", *arguments.settings]
        self.chance = random.Random(arguments.seed)
        self.killed: Counter[str] = Counter()
        self.starts = self.retries = 0

    def run(self) -> dict[str, Any]:
        wanted = self.folder / "undisturbed"
        code = self.start(wanted).wait()
        if code != DONE:
            raise SystemExit(f"The undisturbed run ended with {code}.")
        lost = doubled = runs = 0
        equal = True
        began = time.monotonic()
        while sum(self.killed.values()) < self.kills:
            run = self.folder / f"disturbed-{runs}"
            self.carry_out(run)
            fewer, more = compare(RunFolder(wanted), RunFolder(run))
            lost, doubled, runs = lost + fewer, doubled + more, runs + 1
            equal = equal and fewer == more == 0 and all(
                (wanted / f"{name}.parquet").read_bytes() == (run / f"{name}.parquet").read_bytes() for name in FINAL
            )  # fmt: skip
            shutil.rmtree(run)
        return {
            "kills": sum(self.killed.values()), "kills_driver": self.killed["driver"],
            "kills_worker": self.killed["worker"], "kills_all": self.killed["all"], "runs": runs, "starts": self.starts,
            "retries": self.retries, "rows_lost": lost, "rows_doubled": doubled, "tables_equal": equal,
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip

    def carry_out(self, run: Path) -> None:
        """One run from its start to its end, killed and resumed as long as there are kills to spend."""
        arguments: list[str] = []
        failed = done = 0
        while True:
            process = self.start(run, *arguments)
            self.disturb(process, run)
            code = process.wait()
            if code == DONE:
                return
            if code == PARTIAL:
                self.retries += 1
                arguments = ["--retry-failed"]
            elif code == FAILED and failed < 5:  # such as workers that were killed too often in a row
                failed, done = failed + 1 if steps_done(run) == done else 0, steps_done(run)
            elif code != -signal.SIGKILL:
                raise SystemExit(f"The run ended with {code}, after {dict(self.killed)}.")

    def start(self, run: Path, *arguments: str) -> subprocess.Popen[bytes]:
        self.starts += 1
        command = [sys.executable, "-m", "gazetteer", "label", "--out", str(run), *arguments, "--set", *self.settings]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def disturb(self, process: subprocess.Popen[bytes], run: Path) -> None:
        """Kill what belongs to the process at random moments until it ends or the kills are spent."""
        what = ""
        while sum(self.killed.values()) < self.kills and self.wait(process, run):
            what = what or self.chance.choices([*KINDS], [*KINDS.values()])[0]
            family = descendants(process.pid)
            if what == "worker":
                workers = [pid for pid in family if name_of(pid).startswith("ray::Actor")]
                if workers:  # else some other time, for starts would come to more than their share
                    self.count(what, kill(self.chance.choice(workers)), run)
                    what = ""
                continue
            process.kill()
            self.count(what, process.wait() == -signal.SIGKILL, run)  # or it had ended by itself just now
            if what == "driver":
                time.sleep(self.chance.random())  # what it leaves behind goes on for a while
            for pid in {process for parent in family for process in (parent, *descendants(parent))}:
                kill(pid)
            return

    def count(self, what: str, killed: bool, run: Path) -> None:
        self.killed[what] += killed
        if killed:
            total = sum(self.killed.values())
            print(f"{total}/{self.kills} {what}, {run.name} at {steps_done(run)} steps", file=sys.stderr, flush=True)

    def wait(self, process: subprocess.Popen[bytes], run: Path) -> bool:
        """Until a random moment; whether the process is still there then."""
        if self.chance.random() < ANYWHERE:
            pause = self.chance.expovariate(1 / 5.0)
        else:
            pause, wanted = self.chance.random(), steps_done(run) + self.chance.randint(1, self.steps)
            began, reached = time.monotonic(), steps_done(run)
            while process.poll() is None and (now := steps_done(run)) < wanted:
                if now != reached:
                    began, reached = time.monotonic(), now
                elif time.monotonic() - began > HANGS:
                    raise SystemExit(f"The run has hung for {HANGS:g} s, after {dict(self.killed)}.")
                time.sleep(0.02)
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            return True
        return False


def steps_done(run: Path) -> int:
    """How many things the run has done for good: shards recorded, passes planned, final tables written."""
    return sum(len(list(run.glob(names))) for names in ("_meta/commits/*.json", "_meta/*-[0-9]*.json", "*.parquet"))


def compare(wanted: RunFolder, run: RunFolder) -> tuple[int, int]:
    """Rows of the wanted run's committed parts that the other lacks, and rows that it has beyond them."""
    fewer = more = 0
    for table in TABLES:
        wanted_rows, other = (Counter(rows(folder, table)) for folder in (wanted, run))
        fewer += (wanted_rows - other).total()
        more += (other - wanted_rows).total()
    return fewer, more


def rows(run: RunFolder, name: str) -> list[str]:
    table = run.read_table(name)
    # Retries make shards of their own, so evidence is comparable in sum only.
    return [repr(row) for row in (sum_evidence([table]) if name == "evidence" else table).to_pylist()]


def descendants(pid: int) -> list[int]:
    """Every live process below `pid`."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    below_it, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        below_it += below
        todo += below
    return below_it


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()

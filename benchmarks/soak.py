"""Kill a labelling job's driver and workers at random moments, resume it, and compare what comes out.

Every kill is a real SIGKILL of a real process: the driver, one of its workers, or all of them at once, as when a
machine loses power. A run that ends before enough kills were spent is compared and followed by another. Pictures
that were killed so often that they count as failed are tried again with --retry-failed, as an operator would.
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

from data.store import RunFolder
from labeling.evidence import sum_evidence

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "images=24", "shard_size=2", "batch_size=2", "generation.steps=3", "generation.blocks=[mid_block.attentions.0]",
    "coverage.wanted=4", "labels.min_images=2", "labels.permutations=50", "labels.refine=100",
    "max_failed_share=1.0",
]  # fmt: skip
TABLES = ("images", "codes", "segments", "evidence")
FINAL = ("labels", "candidates", "features")
DONE, FAILED, PARTIAL = 0, 1, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mean", type=float, default=0.0, help="mean seconds between kills (0: a quarter of a run)")
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
        self.folder, self.kills, self.mean = folder, arguments.kills, arguments.mean
        self.settings = [*SMALL, f"workers={arguments.workers}", *arguments.settings]
        self.chance = random.Random(arguments.seed)
        self.killed: Counter[str] = Counter()
        self.starts = self.retries = 0

    def run(self) -> dict[str, Any]:
        wanted = self.folder / "undisturbed"
        began = time.monotonic()
        code = self.start(wanted).wait()
        if code != DONE:
            raise SystemExit(f"The undisturbed run ended with {code}.")
        self.mean = self.mean or (time.monotonic() - began) / 4
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
            "seconds": round(time.monotonic() - began, 1), "mean_seconds_between_kills": round(self.mean, 2),
        }  # fmt: skip

    def carry_out(self, run: Path) -> None:
        """One run from its start to its end, killed and resumed as long as there are kills to spend."""
        arguments: list[str] = []
        failed = 0
        while True:
            process = self.start(run, *arguments)
            self.disturb(process)
            code = process.wait()
            if code == DONE:
                return
            if code == PARTIAL:
                self.retries += 1
                arguments = ["--retry-failed"]
            elif code == FAILED and failed < 5:  # such as workers that were killed too often in a row
                failed += 1
            elif code != -signal.SIGKILL:
                raise SystemExit(f"The run ended with {code}, after {dict(self.killed)}.")

    def start(self, run: Path, *arguments: str) -> subprocess.Popen[bytes]:
        self.starts += 1
        command = [sys.executable, "-m", "jobs.cli", "label", "--out", str(run), *arguments, "--set", *self.settings]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def disturb(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what belongs to the process at random moments until it ends or the kills are spent."""
        while sum(self.killed.values()) < self.kills:
            try:
                process.wait(self.chance.expovariate(1 / self.mean))
                return
            except subprocess.TimeoutExpired:
                pass
            family = descendants(process.pid)
            workers = [pid for pid in family if name_of(pid).startswith("ray::")]
            what = self.chance.choice(["driver", "all", "worker", "worker"])
            if what == "worker":
                if workers and kill(self.chance.choice(workers)):
                    self.killed[what] += 1
                continue
            if kill(process.pid):
                self.killed[what] += 1
            if what == "driver":
                time.sleep(self.chance.random())  # what it leaves behind goes on for a while
            for pid in family:
                kill(pid)
            return


def compare(wanted: RunFolder, run: RunFolder) -> tuple[int, int]:
    """Rows of the wanted run's committed parts that the other lacks, and rows that it has beyond them."""
    fewer = more = 0
    for table in TABLES:
        one, other = (Counter(rows(folder, table)) for folder in (wanted, run))
        fewer += (one - other).total()
        more += (other - one).total()
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
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


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

"""One training step and one encoding of an SAE (d=1280, n=5120, k=10, batch 4096) beside the public trainers.

Every trainer lives in a process of its own with the same threads and data; they take turns, one step each, so that a
machine whose speed drifts is fair to all. Costs are CPU-seconds, medians of several rounds after a warm-up; what ours
takes of theirs is compared round by round, with the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from contextlib import suppress
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("eai-sparsify", "dictionary-learning", "overcomplete", "sae-lens")
OURS = ("floor", "gazetteer", "gazetteer-plain")
SIZES = {"d": 1280, "n": 5120, "k": 10, "batch": 4096, "dead": 2000}
NOT_PACKAGED = {"sdxl-unbox": "not an installable package: a repository of scripts without a build"}
# Threads that wait must not burn the CPU-seconds that are counted, least of all on a busy machine.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "SPARSIFY_DISABLE_TRITON": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--only", nargs="*", help="trainers to run (default: all)")
    parser.add_argument("--recovery", type=int, default=0, metavar="STEPS", help="also recover a known dictionary")
    parser.add_argument("--starts", type=int, default=1, help="recover each dictionary from so many first weights")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    wanted = [name for name in (*OURS, *PEERS) if arguments.only is None or name in arguments.only]
    failed = dict(NOT_PACKAGED) if arguments.only is None else {}
    python, broken = peer_environment([name for name in wanted if name in PEERS])
    failed |= broken
    sizes = {name: getattr(arguments, name) for name in SIZES}
    workers: dict[str, Worker] = {}
    for name in wanted:
        if name in failed:
            continue
        try:
            workers[name] = Worker(name, python if name in PEERS else sys.executable, arguments.threads, sizes)
        except RuntimeError as error:
            failed[name] = str(error)
    result = measure(workers, failed, arguments.rounds, sizes["batch"], arguments.recovery, arguments.starts)
    for worker in workers.values():
        worker.close()
    report(result, failed)
    if arguments.json:
        print(json.dumps({**result, **sizes, "threads": arguments.threads, "not_run": failed}))


def peer_environment(names: list[str]) -> tuple[str, dict[str, str]]:
    """The interpreter of an environment that adds the peers to the project's packages, and why some are missing.

    It sees what is installed here (all then run the same torch) and holds only what the peers add.
    """
    folder = ROOT / "build" / "sae-peers"
    python, failed = folder / "bin" / "python", {}
    if not names:
        return str(python), {}
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    query = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    packages = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    Path(packages, "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    lines = (ROOT / "benchmarks" / "sae" / "requirements.txt").read_text().splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        name = line.split(">")[0]
        marker = folder / f".installed-{name}"
        if name not in names or (marker.exists() and marker.read_text() == line):
            continue
        command = [str(python), "-m", "pip", "install", "--quiet", *line.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            failed[name] = "could not be installed: " + last_line(done.stderr)
        else:
            marker.write_text(line)
    return str(python), failed


class Worker:
    """A trainer's process that obeys orders."""

    def __init__(self, name: str, python: str, threads: int, sizes: dict[str, int]) -> None:
        self.name = name
        environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
        command = [python, str(ROOT / "benchmarks" / "sae" / "_peers.py"), name, *map(str, (threads, *sizes.values()))]
        self.log = ROOT / "build" / f"sae-peer-{name}.log"
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=ROOT, text=True
            )
        self._answer()

    def ask(self, order: str) -> dict[str, Any]:
        """Send an order and wait for its answer; RuntimeError when the trainer failed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(f"failed: {last_line(self.log.read_text())}") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"failed: {last_line(self.log.read_text())}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it may be gone already
            self.process.stdin.close()
        self.process.wait()


def measure(
    workers: dict[str, Worker], failed: dict[str, str], rounds: int, batch: int, recovery: int, starts: int
) -> dict[str, Any]:
    """The table of results; a trainer that fails moves to `failed`."""
    spent: dict[str, dict[str, list[float]]] = {"step": {}, "step_auxk": {}, "encode": {}}
    peaks: dict[str, float] = {}
    recoveries: dict[str, list[float]] = {}

    def ask(name: str, order: str) -> dict[str, Any] | None:
        try:
            return workers[name].ask(order)
        except RuntimeError as error:
            failed[name] = f"{order.split()[0]} {error}"
            workers.pop(name).close()
            return None

    for order, costs in spent.items():
        for turn in range(rounds + 1):
            for name in list(workers):
                answer = ask(name, order)
                if answer is not None and turn > 0:
                    costs.setdefault(name, []).append(answer["cpu"])
    for name in list(workers):
        answer = ask(name, "peak")
        if answer is not None:
            peaks[name] = answer["answer"]
    for start, seed in product(range(starts), range(3 if recovery else 0)):
        for name in [name for name in workers if name != "floor"]:
            answer = ask(name, f"recover {seed} {recovery} {start}")
            if answer is not None:
                recoveries.setdefault(name, []).append(answer["answer"])
    middle = {order: {n: median(costs) for n, costs in by_peer.items()} for order, by_peer in spent.items()}
    rates = {name: batch / seconds for name, seconds in middle["encode"].items()}
    result: dict[str, Any] = {"step": middle["step"], "step_auxk": middle["step_auxk"]}
    result |= {"peak_gb": peaks, "encode_rate": rates, "ratios": ratios(spent), "load": os.getloadavg()}
    return result | ({"recovery": recoveries} if recoveries else {})


def ratios(spent: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    """What our step takes of others' in the same round: lowest, median and highest of the rounds."""
    peers = {}
    for order, other in product(("step", "step_auxk"), ("eai-sparsify", "floor")):
        if "gazetteer" in spent[order] and other in spent[order]:
            rounds = [a / b for a, b in zip(spent[order]["gazetteer"], spent[order][other], strict=False)]
            peers[f"{order} of {other}"] = [min(rounds), median(rounds), max(rounds)]
    return peers


def report(result: dict[str, Any], failed: dict[str, str]) -> None:
    """A table a person can read: CPU-seconds, GB, vectors per CPU-second, mean max cosine per seed."""
    print(f"{'':24}{'step':>8}{'+AuxK':>8}{'peak':>7}{'encode/s':>10}  recovery")
    for name in result["step"]:
        cells = [result[key].get(name, float("nan")) for key in ("step", "step_auxk", "peak_gb", "encode_rate")]
        seeds = " ".join(f"{value:.4f}" for value in result.get("recovery", {}).get(name, []))
        print(f"{name:24}{cells[0]:8.3f}{cells[1]:8.3f}{cells[2]:7.2f}{cells[3]:10.0f}  {seeds}")
    for name, (low, middle, high) in result["ratios"].items():
        print(f"gazetteer's {name}'s: {middle:.2f} ({low:.2f} to {high:.2f})")
    print(f"load {result['load'][0]:.1f}")
    for name, reason in failed.items():
        print(f"{name:24}not run: {reason}")


def last_line(text: str) -> str:
    """The last line that says something, at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no message")[:300]


if __name__ == "__main__":
    main()

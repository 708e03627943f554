"""How far `gazetteer plan --like` is off: a run's second pass foretold from its first, in bytes and worker seconds."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import _checkout  # noqa: F401

from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.label.job import label
from gazetteer.jobs.label.shards import PASSES, read_pass
from gazetteer.jobs.operate.measured_run import Measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run with a coverage pass (default: a small one is made)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or str(Path(folder) / "run")
        if not arguments.run:
            settings = ["images=64", "shard_size=8", "generation.steps=4", "coverage.first=0.5", "executor=serial"]
            label(load_config(None, settings), run)
        result = compare(run)
    print(f"{result['from']} pictures foretell {result['to']}: foretold over real")
    for name in ("bytes", "seconds"):
        print(f"  {name}: " + ", ".join(f"{key} {ratio:.3f}" for key, ratio in result[name].items()))
    if arguments.json:
        print(json.dumps(result))


def compare(run: str) -> dict:
    """Ratio of what the first pass foretells to what the second took, a table and a stage."""
    store = RunFolder(run)
    commits = store.committed()
    known, real = (Measured([commits[shard.id] for shard in read_pass(store, name) or []]) for name in PASSES)
    shards = len(real.commits)
    foretold, took = known.bytes(real.images, shards), real.bytes(real.images, shards)
    spent, needed = known.seconds(real.images), real.seconds(real.images)
    total = sum(spent.values()) / sum(needed.values())
    return {
        "from": known.images,
        "to": real.images,
        "bytes": {table: foretold[table] / took[table] for table in took if table != "failures"},
        # stages that were taken over from another run took none
        "seconds": {**{stage: spent[stage] / needed[stage] for stage in needed if needed[stage]}, "total": total},
    }


if __name__ == "__main__":
    main()

"""What a run costs beside its models, at sizes that fit here, and what that comes to at the paper's 40,000 pictures.

Synthetic shards at the shapes of arXiv 2504.15473 on Stable Diffusion 1.4 (18 sites of 5,120 features, 64 pictures a
shard, 80 concepts) go through the project's own writers, readers, driver and reduction. CPU seconds and waits are
counted rather than the clock, so that a busy machine does not change them much; sites are independent, so that few are
measured and 18 reckoned. Peak memory is that of a process of its own.

    python benchmarks/scale.py --json         some minutes on one core
    python -m benchmarks.scale --only reduce --sizes 1024 2048 4096 --stretches 2 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

PARTS = ("shard", "commit", "reduce", "coverage", "driver", "devices")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="pictures, rising, at least 3")
    parser.add_argument("--sites", type=int, default=1, help="sites that are reduced at each size")
    parser.add_argument(
        "--stretches", type=int, default=0, help="of a site's, at least 2, to reduce and take for all; 0: all"
    )
    parser.add_argument("--coverage-sizes", type=int, nargs="+", default=[128, 256, 384])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    for sizes in (arguments.sizes, arguments.coverage_sizes):
        if (
            arguments.stretches not in (0, *range(2, 65))
            or len(sizes) < 3
            or sorted(set(sizes)) != sizes
            or sizes[0] < 1
        ):
            parser.error("sizes must be at least three, rising, and stretches 0 or 2 to 64")
    result = measure(arguments)
    for name, value in result.items():
        print(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(result))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    from benchmarks.scaling.bookkeeping import bookkeeping, commit_wait, evidence_of_a_shard
    from benchmarks.scaling.devices import gpu_workers
    from benchmarks.scaling.reducing import coverage, reduction
    from benchmarks.scaling.synthetic import Shapes

    result: dict[str, Any] = {}
    if "shard" in arguments.only:
        result |= evidence_of_a_shard(Shapes())
    if "reduce" in arguments.only:
        result["reduce"] = reduction(Shapes(sites=arguments.sites), arguments.sizes, arguments.stretches)
    if "coverage" in arguments.only:
        result["coverage"] = coverage(Shapes(), arguments.coverage_sizes)
        result["coverage_gb_at_40000"] = result["coverage"]["gb_at_40000"]
    if "commit" in arguments.only:
        result |= commit_wait()
    if "driver" in arguments.only:
        result |= bookkeeping()
    if "devices" in arguments.only:
        result |= gpu_workers()
    result["load_average"] = os.getloadavg()[0]
    return result


if __name__ == "__main__":
    main()

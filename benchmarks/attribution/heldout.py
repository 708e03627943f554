"""How many trajectories scores need before they foretell ablations on noise they have not seen.

    python -m benchmarks.attribution.heldout --json

The held-out study of `gazetteer attribute evaluate` alone, on concepts and trajectories that are named.
"""

from __future__ import annotations

import argparse
import json
import time

from gazetteer.attribution.edits.defaults import evaluated
from gazetteer.attribution.faithfulness.heldout import HeldoutConfig, heldout_study, heldout_summary
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_evaluate import load_methods, read_cases
from gazetteer.jobs.experiments.attribute_report import print_heldout


def main() -> None:
    """Run the study concept by concept and print the summary of all so far after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config")
    parser.add_argument("--objects", nargs="+", default=["boat", "house", "dog", "sun", "car"])
    parser.add_argument("--styles", nargs="*", default=["night", "pencil sketch"])
    parser.add_argument("--ablations", type=int, default=40)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--inputs", type=int, default=2, help="trajectories of held-out noise")
    parser.add_argument("--trajectories", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    run, start = load_config(arguments.config, ["threads=1"]), time.process_time()
    how = evaluated(run.generation.steps, run.generation.guidance, run.seed)
    methods, _ = load_methods(run, how, read_cases(run, 8))
    config = HeldoutConfig(
        len(arguments.objects), len(arguments.styles), arguments.ablations, arguments.fraction, arguments.inputs,
        tuple(arguments.trajectories), arguments.points,
    )  # fmt: skip
    kinds = dict.fromkeys(arguments.objects, "objects") | dict.fromkeys(arguments.styles, "styles")
    rows = []
    for concept in kinds:
        rows += heldout_study(methods, concept, config, run.seed + 20_000)
        print(f"with {concept}, {time.process_time() - start:.0f} CPU-seconds", flush=True)
        print_heldout(heldout_summary(rows, kinds, 1000, 0))
    if arguments.json:
        summary = heldout_summary(rows, kinds, 1000, 0)
        print(json.dumps({"faithfulness_heldout": summary, "rows": rows, "cpu_seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()

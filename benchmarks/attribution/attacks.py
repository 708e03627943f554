"""Attacks on edits at their default doses, concept by concept, without the rest of an evaluation.

python -m benchmarks.attribution.attacks --concepts boat dog --methods steps cad --attacks named embedding
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

from gazetteer.attribution.attacks.embedding import Inversion
from gazetteer.attribution.attacks.names import ATTACKS
from gazetteer.attribution.edits.defaults import POOL, dose, evaluated
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.evaluators import Evaluators, detecting, painter
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.resistance import Resistance, ResistanceConfig
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_evaluate import load_methods, read_cases, style_words
from gazetteer.jobs.experiments.attribute_report import print_attacks
from gazetteer.labeling.detect.load import load_detector


def main() -> None:
    """Attack the edits of one concept after the other; with a folder a stopped run goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config")
    parser.add_argument("--concepts", nargs="+", default=["boat", "dog", "house", "sun"])
    parser.add_argument("--methods", nargs="+", default=["steps", "cad"])
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--batch", type=int, default=Inversion.batch, help="samples a step of an inversion")
    parser.add_argument("--out", help="keeps every result")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    run, start = load_config(arguments.config, ["threads=1"]), time.process_time()
    how, prompts = (
        evaluated(run.generation.steps, run.generation.guidance, run.seed), read_cases(run, POOL, style_words(run)),
    )  # fmt: skip
    methods, _ = load_methods(run, how, prompts)
    paint = painter(methods.pipe, dataclasses.replace(run.generation, steps=how.steps, exact=False))
    evaluators = Evaluators(paint, detecting(load_detector(run.detector), methods.concepts))
    settings = {"methods": dataclasses.asdict(how), "batch": arguments.batch}
    pairs = PicturePairs(methods, evaluators, prompts.cases, 8, cache=ResultCache(arguments.out, settings))
    config = ResistanceConfig(tuple(arguments.attacks), inversion=Inversion(batch=arguments.batch))
    doses = {method: dose("erase", method, "objects").taken for method in arguments.methods}
    result = {}
    for number in range(1, len(arguments.concepts) + 1):
        concepts = arguments.concepts[:number]
        result = Resistance(pairs, config, (1000, 0)).run(doses, concepts)
        print(f"{', '.join(concepts)}: {time.process_time() - start:.0f} CPU-seconds", flush=True)
        print_attacks(result)
    if arguments.json:
        print(json.dumps({"attacks": result, "cpu_seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()

"""Does attribution pay for choosing which weights to train? J left by the same gradient steps, at equal counts.

For each concept and fraction of the cross-attention weights, `steps` trains the weights with the largest |dJ/dw|; the
controls train as many of each layer at random, or the largest. J is the distance to what is wanted in context, on other
noise and other prompts than those trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cases import CHOOSE
from gazetteer.attribution.objective.prompts import without
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.attribute_evaluate import load_methods, read_cases
from gazetteer.jobs.experiments.attribute_table import interval
from gazetteer.labeling.quality.intervals import mean_interval

METHODS = ("steps", "steps_random")
FRACTIONS = (0.0003, 0.001, 0.003, 0.01, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--concepts", nargs="+", default=["boat", "dog", "house", "sun", "tree"])
    parser.add_argument("--fractions", nargs="+", type=float, default=list(FRACTIONS))
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    run = load_config(arguments.config, ["threads=1"])
    start = time.process_time()
    config = MethodConfig(steps=arguments.steps, guidance=run.generation.guidance, seed=run.seed)
    prompts = read_cases(run, 160)
    methods, _ = load_methods(run, config, prompts)
    held = {case.prompt: case.named for case in prompts.cases if case.half != CHOOSE}
    # The same model, so that an edit of the one shows in the other.
    other = Methods(methods.pipe, MethodConfig(**{**vars(config), "seed": 77}), methods.concepts, held, without)
    left_by: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for concept in arguments.concepts:
        seen = other.problems.problem("erase", concept, "context")
        before = seen.values().numpy()
        named = before > 1e-3 * before.max()  # what is to stay as it is starts at nothing
        for fraction in arguments.fractions:
            for method in METHODS:
                with applied(methods.denoiser, methods.edit("erase", method, concept, fraction)):
                    after = seen.values().numpy()
                left = after[named].mean() / before[named].mean(), after[~named].mean() / before[named].mean()
                left_by.setdefault(f"{fraction:g}", {}).setdefault(method, []).append(left)
    result: dict[str, Any] = {"concepts": arguments.concepts, "cpu_seconds": time.process_time() - start, "left": {}}
    print(f"J left on prompts that name the concept, and J gained on others; {', '.join(arguments.concepts)}")
    for fraction, by_method in left_by.items():
        result["left"][fraction] = {}
        for method, pairs in by_method.items():
            target, damage = (mean_interval([pair[side] for pair in pairs]) for side in (0, 1))
            result["left"][fraction][method] = {"target": target, "damage": damage}
            cells = f"{interval(target)}   {interval(damage, 3)}"
            print(f"  fraction {fraction:<7}{method:<14}{cells}")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

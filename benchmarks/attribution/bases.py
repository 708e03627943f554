"""Does `cad` find the concept's weights, or those that lead away from one base? Scores under several bases, compared.

All are taken on the same states x_t, so that only the base differs: the empty prompt, two prompts without content, a
neighbour of the concept, the concept and the empty prompt swapped, and the symmetric J, whose gradient is the sum of
both (the erase objective without its stop-gradient). For scale: another trajectory under the same base, and the
neighbour's own scores.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import torch
from scipy.stats import spearmanr

from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.problem import Scores, diffusion_problem
from gazetteer.attribution.objective.samples import Samples, repeated
from gazetteer.attribution.objective.trajectory import conditioning, trajectory
from gazetteer.attribution.scores.estimators import estimate
from gazetteer.attribution.scores.overlap import neighbours
from gazetteer.attribution.scores.selection import Selection, jaccard, scope_weights, select
from gazetteer.data.core.terminal import print_table
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.vocabulary.concepts import Vocabulary

FRACTION = Selection(0.01, "layer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--concept", default="boat")
    parser.add_argument("--bases", nargs="*", default=["a picture", "grass"], help="prompts to stand for the base")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--scope", default="ff", help="ff, cross, self, conv or all")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    run = load_config(arguments.config, ["threads=1"])
    start = time.process_time()
    pipe: Any = load_pipeline(run.model)
    weights = scope_weights(pipe.unet, arguments.scope)
    near = neighbours(pipe, sorted(Vocabulary(run.vocabulary).concepts))[arguments.concept][0]

    def walk(concept: str, seed: int) -> Samples:
        return trajectory(pipe, [concept], [seed], steps=arguments.steps, guidance=run.generation.guidance)

    def score(samples: Samples, stop_gradient: bool = True) -> Scores:
        return estimate("cad", diffusion_problem(pipe.unet, Erase(stop_gradient), samples, weights))

    own = walk(arguments.concept, 0)
    reference = score(own)
    others = {repr(base): score(on_base(pipe, own, base)) for base in (*arguments.bases, near)}
    others["swapped"] = score(replace(own, cond=own.base or {}, base=own.cond))
    others["symmetric"] = score(own, stop_gradient=False)
    others["other trajectory"] = score(walk(arguments.concept, 1))
    others[f"{near!r} itself"] = score(walk(near, 0))
    rows = {name: agreement(reference, scores) for name, scores in others.items()}
    print(
        f"{arguments.concept}: scores under other bases against those under the empty prompt, scope {arguments.scope}"
    )
    print_table(
        {"base": "", "Spearman": ".2f", "Jaccard of the top 1 %": ".2f"},
        ((name, row["spearman"], row["jaccard"]) for name, row in rows.items()),
    )
    if arguments.json:
        about = {"concept": arguments.concept, "steps": arguments.steps, "scope": arguments.scope}
        print(json.dumps({**about, "cpu_seconds": time.process_time() - start, "against": rows}))


def on_base(pipe: Any, samples: Samples, base: str) -> Samples:
    """The same states with another base."""
    return replace(samples, base=repeated(conditioning(pipe, [base]), len(samples)))


def agreement(first: Scores, second: Scores) -> dict[str, float]:
    """Rank correlation of all scores, and the Jaccard index of the choices."""
    flat = [torch.cat([s[name].reshape(-1) for name in first]).numpy() for s in (first, second)]
    return {
        "spearman": float(spearmanr(*flat).statistic),
        "jaccard": jaccard(select(first, FRACTION), select(second, FRACTION)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

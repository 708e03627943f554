"""What scoring a concept costs: the published scheme (t steps anew for every t) against one trajectory for all steps.

Counts guided U-Net calls and gradients, and checks that the scores agree: exactly where both use the same noise, by
rank correlation where, as published, every step starts from fresh noise.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.problem import Scores, diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import conditioning, noise, trajectory
from gazetteer.attribution.scores.estimators import estimate
from gazetteer.attribution.scores.selection import Selection, jaccard, scope_weights, select
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--concept", default="boat")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipe: Any = load_pipeline(load_config(arguments.config).model)
    weights = scope_weights(pipe.unet, "ff")
    counter = Counter(pipe)

    def scores(samples: Samples) -> Scores:
        return estimate("cad", diffusion_problem(pipe.unet, Erase(), samples, weights, batch=1))

    steps, guidance = arguments.steps, arguments.guidance
    start = time.process_time()
    samples = trajectory(pipe, [arguments.concept], [0], steps=steps, guidance=guidance, pairing="published")
    ours_calls = counter.guided
    ours = scores(samples)
    ours_seconds = time.process_time() - start

    counter.guided = 0
    start = time.process_time()
    fresh = published(pipe, arguments.concept, list(range(1, steps + 1)), steps, guidance)
    published_calls = counter.guided
    theirs = scores(fresh)
    published_seconds = time.process_time() - start

    sampled = sorted({round(i * (steps - 1) / 4) for i in range(5)})  # the scheme's cost is known by now
    same = published(pipe, arguments.concept, [0] * len(sampled), steps, guidance, sampled)
    again = scores(trajectory(pipe, [arguments.concept], [99], steps=steps, guidance=guidance, pairing="published"))
    fraction = Selection(0.01, "layer")
    result = {
        "guided_calls": {"published": published_calls, "one_trajectory": ours_calls},
        "gradients": {"published": steps, "one_trajectory": steps},
        "cpu_seconds": {"published": published_seconds, "one_trajectory": ours_seconds},
        "same_noise_inputs_identical": bool(torch.equal(same.x, samples.x[sampled])),
        "spearman": correlation(ours, theirs),
        "jaccard_top_1_percent": jaccard(select(ours, fraction), select(theirs, fraction)),
        "spearman_two_trajectories": correlation(ours, again),
    }
    print(
        f"guided U-Net calls {published_calls} published, {ours_calls} with one trajectory ({steps} gradients each); "
        f"CPU s {published_seconds:.1f}, {ours_seconds:.1f}\n"
        f"same noise: inputs identical {result['same_noise_inputs_identical']}; fresh noise: Spearman "
        f"{result['spearman']:.3f}, Jaccard of the top 1 % {result['jaccard_top_1_percent']:.3f}; "
        f"two of our own trajectories: Spearman {result['spearman_two_trajectories']:.3f}"
    )
    if arguments.json:
        print(json.dumps(result))


class Counter:
    """Counts guided calls: those with both halves of guidance in the batch."""

    def __init__(self, pipe: Any) -> None:
        self.guided = 0
        pipe.unet.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["sample"]
        self.guided += len(x) == 2 and torch.equal(x[0], x[1])


def published(
    pipe: Any, concept: str, seeds: Sequence[int], steps: int, guidance: float, only: Sequence[int] | None = None
) -> Samples:
    """The reference's inputs: for t = 1 … steps, run t sampler steps from a noise, keep the state and that timestep.

    `only` some 0-based steps; None is all of them. One seed for each.
    """
    chosen = list(range(steps)) if only is None else list(only)
    inputs = [first_steps(pipe, concept, seed, t + 1, steps, guidance) for t, seed in zip(chosen, seeds, strict=True)]
    cond, base = ({k: torch.cat([v] * len(chosen)) for k, v in conditioning(pipe, [p]).items()} for p in (concept, ""))
    pipe.scheduler.set_timesteps(steps)  # last, as every run of the pipeline sets its own
    return Samples(torch.cat(inputs), pipe.scheduler.timesteps[chosen], cond, base)


@torch.no_grad()
def first_steps(pipe: Any, prompt: str, seed: int, wanted: int, steps: int, guidance: float) -> Tensor:
    """The state after the first `wanted` of `steps` sampler steps; the pipeline is interrupted there."""
    seen: list[Tensor] = []

    def stop(pipeline: Any, step: int, _: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if step == wanted - 1:
            seen.append(values["latents"].clone())
            pipeline._interrupt = True
        return values

    pipe(
        prompt=prompt, latents=noise(pipe, [seed]), num_inference_steps=steps, guidance_scale=guidance,
        output_type="latent", callback_on_step_end=stop,
    )  # fmt: skip
    return seen[0]


def correlation(first: Scores, second: Scores) -> float:
    """Spearman over all weights."""
    flat = [torch.cat([s[name].reshape(-1) for name in sorted(s)]).numpy() for s in (first, second)]
    return float(spearmanr(*flat).statistic)


if __name__ == "__main__":
    main()

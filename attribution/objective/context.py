"""What a concept does within the pictures it appears in: samples for objectives that erase or amplify it there.

The published erase objective takes the concept's bare name against the empty prompt: everything that a picture has
beside the concept counts as the concept too, and nothing says what to keep. Here a prompt that names the concept is
compared with the same prompt without it, on the same x_t, and other prompts are to stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.samples import Samples, freeze_target, join, repeated, shuffled
from gazetteer.attribution.objective.trajectory import conditioning, other_half
from gazetteer.diffusion.denoisers.registry import network

Walk = Callable[[Sequence[str], Sequence[int]], Samples]
"""(prompts, 0-based sampler steps) -> the intact model's inputs there, all prompts of a step and then the next, with
the empty prompt as base (`trajectory`)."""


@dataclass(frozen=True)
class Context:
    """Prompts to measure a concept on.

    Attributes:
        named: prompts that name the concept.
        plain: the same prompts without it.
        kept: prompts that do not name it.
    """

    named: tuple[str, ...]
    plain: tuple[str, ...]
    kept: tuple[str, ...]


def context_samples(
    pipe: Any,
    context: Context,
    factor: float,
    walk: Walk,
    *,
    early: Sequence[int],
    only: Sequence[int],
    seed: int = 0,
    guidance: float = 1.0,
) -> Samples:
    """Samples with targets for `objectives.Distance`: J = 0 where the edit does exactly what is wanted.

    On prompts that name the concept the target is the intact Φ(plain) + factor · (Φ(named) − Φ(plain)): factor 0
    and below erases, factor > 1 amplifies. On the same prompts without it, on other prompts, and on what the other half
    of guidance is told (the empty prompt; nothing but zeros by SDXL) at the same x_t, the target is the intact
    prediction itself.

    Args:
        factor: see `freeze_target`.
        walk: gives the inputs.
        early: 0-based sampler steps at which the prompts that name the concept are compared: those at which it is
            decided what the picture shows, as later x_t tell the model all by themselves.
        only: steps at which other prompts are held.
        seed: of the order.
        guidance: at which `walk` walks.

    Pairs differ in how much the concept changes by orders of magnitude, and a few must not decide alone: with d the
    squared distance of Φ(named) and Φ(plain), a named sample weighs 1 / (d + the median d), every other 1 / median d.

    Returns:
        shuffled samples: the named ones, as many with the prompts without the concept, one of each kept prompt and
        step, and the other half of guidance at half of those x_t.
    """
    denoiser, named = network(pipe), walk(context.named, early)
    plain = repeated(conditioning(pipe, context.plain, guidance), len(named) // len(context.named))
    named = replace(named, base=plain)
    with torch.no_grad():
        far = torch.cat([Erase()(denoiser, part) for part in named.chunks(16)])
    scale = far.median().clamp_min(1e-12)
    parts = [replace(freeze_target(denoiser, named, factor), weight=1 / (far + scale))]
    stay = [replace(named, cond=named.base or {}, base=None)]
    if context.kept:
        stay.append(walk(context.kept, only))
        told = other_half(pipe, context.kept, guidance) or conditioning(pipe, [""] * len(context.kept), guidance)
        empty = replace(stay[1], cond=repeated(told, len(stay[1]) // len(context.kept)), base=None)
        stay[1] = replace(stay[1], base=None)
        stay.append(empty.at(slice(None, None, 2)))
    for samples in stay:
        held = freeze_target(denoiser, samples, 1.0)
        parts.append(replace(held, weight=(1 / scale).expand(len(held))))
    return shuffled(join(*(replace(part, base=None) for part in parts)), seed)

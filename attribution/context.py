"""What a concept does within the pictures it appears in: samples for objectives that erase or amplify it there.

The published erase objective takes the concept's bare name against the empty prompt: everything that a picture has
beside the concept counts as the concept too, and nothing says what to keep. Here a prompt that names the concept is
compared with the same prompt without it, on the same x_t, and other prompts are to stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attribution.samples import Samples, freeze_target, join, shuffled, trajectory


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
    *,
    steps: int = 50,
    guidance: float = 3.0,
    early: Sequence[int] | None = None,
    only: Sequence[int] | None = None,
    seed: int = 0,
) -> Samples:
    """Samples with targets for `objectives.Distance`: J = 0 where the edit does exactly what is wanted.

    On prompts that name the concept the target is the intact Φ(plain) + factor · (Φ(named) − Φ(plain)): factor 0
    erases, factor > 1 amplifies. On the same prompts without it, on other prompts, and on the empty prompt (the other
    half of guidance) at the same x_t, the target is the intact prediction itself.

    Args:
        factor: see `freeze_target`.
        early: 0-based sampler steps at which the prompts that name the concept are compared: those at which it is
            decided what the picture shows, as later x_t tell the model all by themselves. None: `only`.
        only: steps at which other prompts are held; None takes all.
        seed: of the first trajectory, the others count on from it.

    Returns:
        shuffled samples: the named ones, as many with the prompts without the concept, one of each kept prompt and
        step, and the empty prompt at half of those x_t.
    """
    how: dict[str, Any] = {"steps": steps, "guidance": guidance}
    seeds = [seed + i for i in range(len(context.named) + len(context.kept))]
    named = trajectory(pipe, context.named, seeds[: len(context.named)], base=context.plain, only=early or only, **how)
    parts = [freeze_target(pipe.unet, named, factor)]
    stay = [replace(named, cond=named.base or {}, base=None)]
    if context.kept:
        stay.append(trajectory(pipe, context.kept, seeds[len(context.named) :], only=only, **how))
        empty = replace(stay[1], cond=stay[1].base or {}, base=None)
        stay[1] = replace(stay[1], base=None)
        stay.append(empty.at(slice(None, None, 2)))
    parts += [freeze_target(pipe.unet, samples, 1.0) for samples in stay]
    return shuffled(join(*(replace(part, base=None) for part in parts)), seed)

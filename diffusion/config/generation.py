"""How pictures are sampled and where the model is listened to: one frozen, validated data class."""

from __future__ import annotations

import logging
from itertools import combinations, product

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Effect, Natural, setting, settings
from gazetteer.data.core.sites import BRANCHES, SIGNALS, STREAMS, TEXT, Site, nearest_t, step_of

log = logging.getLogger(__name__)

FAR = 0.05
"""A site is called by the t that was asked for; further than this from the step that is heard, the name misleads."""


@settings("generation")
class GenerationConfig:
    """How pictures are sampled and where the model is listened to."""

    steps: Count = setting(Effect.PICTURES, "Sampler steps.", default=50)
    guidance: float = setting(
        Effect.PICTURES,
        "Classifier-free guidance scale as diffusers defines it; 1 or less turns guidance off.",
        default=7.5,
    )
    true_guidance: float = setting(
        Effect.PICTURES,
        "Of FLUX.1, whose guidance is distilled, the scale of true guidance, in a second call a step; 1 or less: none. "
        "Other models are refused with it.",
        default=1.0,
        late=True,
    )
    height: Natural = setting(Effect.PICTURES, "Height of a picture in px; 0 takes the model's own.", default=0)
    width: Natural = setting(Effect.PICTURES, "Width of a picture in px; 0 takes the model's own.", default=0)
    blocks: tuple[str, ...] = setting(
        Effect.CODES,
        "Blocks of the denoiser to listen at, by their paths in diffusers; a site is a block, with stream and signal, "
        "a branch and a t.",
        default=("mid_block.attentions.0",),
    )
    streams: tuple[str, ...] = setting(
        Effect.CODES,
        "Which tokens of the blocks: `image` (cells of the picture) or `text` (the prompt's, labelled by its words).",
        default=STREAMS[:1],
        late=True,
    )
    signals: tuple[str, ...] = setting(
        Effect.CODES,
        "What of them: `update`, what a block adds (output minus input), `output`, what it gives, or `input`, what it "
        "is given. Of a part within a block (`transformer_blocks.1.ff`): `output` or `input`.",
        default=SIGNALS[:1],
        late=True,
    )
    branches: tuple[str, ...] = setting(
        Effect.CODES, "`cond`, `uncond` or both halves of classifier-free guidance.", default=BRANCHES
    )
    t: tuple[float, ...] = setting(
        Effect.CODES,
        "Where in the sampling: 1.0 is the first step, 0.0 the last. Of n steps those between lie 1 / (n - 1) apart, "
        "and the nearest is heard: two t of one step are refused, one further than 0.05 from its step is warned of, "
        "and `plan` says which steps they are.",
        default=(1.0, 0.5, 0.0),
    )
    exact: bool = setting(
        Effect.PICTURES,
        "Run the model on one picture per call, so that results do not depend on the batch a picture was in "
        "(floating-point kernels differ between batch shapes). On a GPU, where speed needs batches and "
        "kernels are not reproducible to the bit anyway, set it to false.",
        default=True,
        last_bits=True,
    )

    def __post_init__(self) -> None:
        if "uncond" in self.branches and max(self.guidance, self.true_guidance) <= 1.0:
            raise InputError(
                f"generation.branches asks for uncond, but guidance {self.guidance} turns it off; "
                "raise the guidance above 1 or drop uncond."
            )
        if "uncond" in self.branches and TEXT in self.streams:  # padding, and as much as another prompt has words
            raise InputError(
                "The text stream of the uncond branch holds no words of the prompt; set generation.branches=[cond] "
                "beside generation.streams, and take the image stream of both branches in a run of its own."
            )
        for name in ("blocks", "streams", "signals", "branches"):
            values = getattr(self, name)
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise InputError(f"generation.{name} names {twice} twice.")
        if not self.sites:
            raise InputError("generation needs at least one block, stream, signal, branch and t.")

    @property
    def sites(self) -> list[Site]:
        """All sites, sorted."""
        every = product(self.blocks, self.branches, self.t, self.streams, self.signals)
        return sorted(Site(*columns) for columns in every)

    @property
    def moments(self) -> dict[float, float]:
        """By t the position of the sampler step that is heard there."""
        return {t: nearest_t(t, self.steps) for t in self.t}


def check_moments(generation: GenerationConfig) -> None:
    """Refuse two t that fall on one sampler step, whose sites would be one; warn of any that lies `FAR` from its step.

    Asked of what listens to a model, and not of what only draws with it.
    """
    steps, moments = generation.steps, generation.moments
    for earlier, later in combinations(moments, 2):
        if step_of(earlier, steps) == step_of(later, steps):
            raise InputError(
                f"generation.t holds {earlier:g} and {later:g}, which both fall on step {step_of(later, steps) + 1} of "
                f"{steps} (t = {moments[later]:.2f}), so that their sites would be one and the same; leave one of them "
                "out, or raise generation.steps."
            )
    far = [f"{t:g} is heard at t = {real:.2f}" for t, real in moments.items() if round(abs(t - real), 6) > FAR]
    if far:
        log.warning(
            "generation.t: of %d sampler steps %s, where the nearest one lies; sites and tables go by the t that was "
            "asked for.", steps, ", and ".join(far),
        )  # fmt: skip

"""Draw edited pictures beside unedited ones, many edits to a batch, from latents kept at each stage's first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.inputs.edits import STAGES, Edit
from gazetteer.diffusion.denoisers.registry import device_of
from gazetteer.diffusion.draw import pictures_of
from gazetteer.diffusion.generate import SPARE, Generator
from gazetteer.diffusion.resume import can_resume, coarse_stride, keep_latents, resumed_at
from gazetteer.diffusion.runtime.memory import FittingBatch
from gazetteer.diffusion.steer import steer
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Picture = NDArray[np.uint8]
"""[height, width, 3]."""


@dataclass(frozen=True)
class Start:
    """Where a picture comes from: its prompt and the seed of its noise."""

    prompt: str
    seed: int


@dataclass
class _Cached:
    """Of one start: the latents [1, channels, h, w] at each stage's first step, and the unedited picture once drawn."""

    latents: dict[str, Tensor] = field(default_factory=dict)
    picture: Picture | None = None


class EditSampler:
    """Samples a stage of a generation again and again, with other edits, from latents that are shared.

    Attributes:
        schedule: of the whole process.
        first: stage -> 0-based step from which it is sampled again; 0 where the sampler cannot begin in the middle.
        stride: of `edited`: so many sampler steps are taken as one.
    """

    def __init__(
        self,
        generator: Generator,
        saes: Mapping[Site, SparseAutoencoder],
        *,
        batch_size: int = 8,
        stride: int = 1,
        dtype: str = "float32",
        cache: int = 256,
    ) -> None:
        """Stages are those of `gazetteer.data.inputs.edits.STAGES`.

        Args:
            stride: the largest to take; 1 is taken where the sampler or the number of steps allows no other.
            dtype: in which pictures are sampled, unedited ones too: with ``bfloat16``, what torch.autocast does in it.
            cache: starts whose unedited pictures and latents are remembered.
        """
        self.generator, self.pipe, self.saes = generator, generator.pipe, saes
        self.batch_size, self.cache = batch_size, cache
        self._fitting, self._alone = (
            FittingBatch("sampling edited pictures", "batch_size", size, SPARE) for size in (batch_size, 1)
        )
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.schedule = generator.schedule
        resumes = can_resume(self.pipe)
        self.stride = coarse_stride(self.pipe, generator.config.steps, stride) if resumes else 1
        self.first = {stage: self.schedule.first_step(window) if resumes else 0 for stage, window in STAGES.items()}
        self._cached: dict[Start, _Cached] = {}

    def unedited(self, starts: Sequence[Start]) -> list[Picture]:
        """The pictures without an edit, sampled whole; each once as long as at most `cache` starts are known."""
        self._fill(starts, decode=True)
        pictures = [self._cached[start].picture for start in starts]
        return [picture for picture in pictures if picture is not None]

    def edited(self, starts: Sequence[Start], edits: Sequence[Sequence[Edit]], stage: str) -> list[Picture]:
        """One picture a start, each with its own edits, whose windows lie in the stage.

        Raises:
            InputError: as `gazetteer.diffusion.steer.steer`, or the safety checker blacked a picture out.
        """
        self._fill(starts, decode=False)

        def drawn(part: slice) -> list[Picture]:
            batch = starts[part]
            own = [
                replace(edit, images=(place,))
                for place, edits_of_one in enumerate(edits[part])
                for edit in edits_of_one
            ]
            latents = torch.cat([self._cached[start].latents[stage] for start in batch])
            with ExitStack() as stack:
                stack.enter_context(resumed_at(self.pipe, self.first[stage], self.stride))
                stack.enter_context(
                    steer(self.pipe, own, self.saes, schedule=self.schedule, guided=self.generator.guided)
                )
                output = self._call(batch, latents, "np")
            return list(pictures_of(output))

        words = any(target.stream == TEXT for own in edits for edit in own for target in edit.targets)
        fitting = self._alone if words and self.generator.adapter.ragged else self._fitting
        return list(chain.from_iterable(fitting.over(len(starts), drawn)))

    def prepare(self, starts: Sequence[Start]) -> None:
        """Sample whole what is not cached yet, for the latents at each stage's first step."""
        self._fill(starts, decode=False)

    def _fill(self, starts: Sequence[Start], decode: bool) -> None:
        """Sample whole what is not cached yet, and with `decode` what has no picture yet."""
        wanted = dict.fromkeys(starts)
        missing = [s for s in wanted if s not in self._cached or (decode and self._cached[s].picture is None)]
        new = [start for start in missing if start not in self._cached]
        if new and len(self._cached) + len(new) > self.cache:
            self._cached = {start: self._cached[start] for start in wanted if start in self._cached}
        for _ in self._fitting.over(len(missing), lambda part: self._sample_whole(missing[part], decode)):
            pass

    def _sample_whole(self, starts: Sequence[Start], decode: bool) -> None:
        noise = self.generator.latents([self.generator.noise(start.seed) for start in starts])
        latents_of: dict[int, Tensor] = {}
        pictures: list[Picture | None] = [None] * len(starts)
        if decode or any(self.first.values()):
            with keep_latents(self.pipe, set(self.first.values()), self.generator.latent_size) as latents_of:
                output = self._call(starts, noise, "np" if decode else "latent")
            if decode:
                pictures = list(pictures_of(output))
        for i, (start, picture) in enumerate(zip(starts, pictures, strict=True)):
            # Step 0 starts from the noise itself, which the pipeline may scale before the U-Net sees it.
            latents = {
                stage: (noise if step == 0 else latents_of[step])[i : i + 1] for stage, step in self.first.items()
            }  # fmt: skip
            self._cached[start] = _Cached(latents, picture)

    @torch.inference_mode()
    def _call(self, starts: Sequence[Start], latents: Tensor, output_type: str) -> Any:
        # A sampler that adds noise at its steps begins at the first (`can_resume`) and goes on with the seed's own.
        generators = [torch.Generator("cpu").manual_seed(start.seed) for start in starts]
        for start, own in zip(starts, generators, strict=True):
            self.generator.noise(start.seed, own)
        with torch.autocast(device_of(self.pipe).type, self.dtype, enabled=self.dtype == torch.bfloat16):
            return self.pipe(
                latents=latents,
                generator=generators,
                output_type=output_type,
                **self.generator.arguments([start.prompt for start in starts]),
            )

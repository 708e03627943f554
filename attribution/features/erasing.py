"""Erasing a concept through SAE features while the model runs, its weights as they are: three ways.

Features are chosen without labels, as SAeUron does (Cywiński & Deja 2501.18052, section 4.2): by how much of a site's
activity each has on prompts that name the concept, less the same on other prompts. What they then write is taken out
(``sae_ablate``), turned round (``sae_negative``, SAeUron's negative multiple), or written by the site's most typical
feature instead, as much of it (``sae_replace``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.edits.problems import ConceptProblems
from gazetteer.attribution.features.activity import activity
from gazetteer.attribution.objective.sampler import set_timesteps
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site, step_of
from gazetteer.diffusion.capture import cells, width_of
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.watch import Hook, Passing, hooked
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import expect_directions, expect_width
from gazetteer.sae.model.chunks import lengths_of

NEGATIVE_FEATURES = 0.03
"""Of a site's features, the fraction that ``sae_negative`` turns round; its dose is the multiple."""


@dataclass(frozen=True)
class Profile:
    """How active the features of a site are on the intact model, [features] float64 each.

    Attributes:
        named: mean activation on prompts that name the concept.
        other: on prompts that do not.
    """

    named: Tensor
    other: Tensor

    def chosen(self, fraction: float) -> Tensor:
        """The features to erase by, at least one, the most particular to the concept first."""
        parts = [mean / mean.sum().clamp_min(1e-12) for mean in (self.named, self.other)]
        score = parts[0] - parts[1]
        wanted = max(1, round(fraction * len(score)))
        order = score.sort(descending=True, stable=True).indices[:wanted]
        return order[score[order] > 0]

    def typical(self, chosen: Tensor) -> int:
        """The most active feature of other prompts that is not among the chosen ones."""
        other = self.other.clone()
        other[chosen] = -1.0
        return int(other.argmax())


class FeatureErasers:
    """The three ways to erase through features, on one pipeline; profiles are measured once per concept."""

    def __init__(self, problems: ConceptProblems, saes: Mapping[Site, SparseAutoencoder]) -> None:
        """Prepare; `saes`: of the sites to act at, those of the cond branch are taken.

        Raises:
            InputError: there is none, or one that does not fit its block.
        """
        self.problems, self.saes = problems, {site: sae for site, sae in saes.items() if site.branch == "cond"}
        if not self.saes:
            raise InputError("Erasing through features needs autoencoders of the cond branch.")
        for site, sae in self.saes.items():
            expect_width(sae, width_of(problems.denoiser, site.block), site)
            expect_directions(sae, site)
        self._profiles: dict[str, dict[Site, Profile]] = {}

    def erased(self, method: str, concept: str, dose: float) -> AbstractContextManager[None]:
        """While open, every call of the U-Net writes without the concept's features, at every step, in all rows.

        The autoencoder of the site nearest in t serves each step. Gradients flow through, for attacks. What is erased
        is measured at once, on the model as it stands.

        Args:
            dose: the fraction of a site's features; of ``sae_negative`` the multiple of what they write (0 ablates).
        """
        profiles = self._profiles.get(concept) or self._profiles.setdefault(concept, self._measured(concept))
        return self._open({s: _Change(method, dose, self.saes[s], profile) for s, profile in profiles.items()})

    @contextmanager
    def _open(self, changes: Mapping[Site, _Change]) -> Iterator[None]:
        denoiser, moments = self.problems.denoiser, _Moments(self.problems)
        blocks = dict.fromkeys(site.block for site in changes)
        hooks = {block: _hook(moments, {s: c for s, c in changes.items() if s.block == block}) for block in blocks}
        handle = denoiser.register_forward_pre_hook(moments.hear, with_kwargs=True)
        try:
            with hooked(denoiser, hooks):
                yield
        finally:
            handle.remove()

    def _measured(self, concept: str) -> dict[Site, Profile]:
        context, numbers = self.problems.context(concept), {}
        sides = [self._inputs(prompts, 8000 + 100 * side) for side, prompts in enumerate((context.named, context.kept))]
        for site, sae in self.saes.items():
            named, other = (activity(self.problems.denoiser, inputs[site.t], site, sae) for inputs in sides)
            numbers[site] = Profile(named, other)
        return numbers

    def _inputs(self, prompts: Sequence[str], first: int) -> dict[float, Samples]:
        c, moments = self.problems.config, sorted({site.t for site in self.saes})
        if not prompts:
            raise InputError("Features of a concept are told by other prompts too, of which there is none.")
        seeds = [c.seed + first + i for i in range(len(prompts))]
        samples = trajectory(
            self.problems.pipe, prompts, seeds, steps=c.steps, guidance=c.guidance, base=c.base,
            only=[step_of(t, c.steps) for t in moments],
        )  # fmt: skip
        return {t: samples.at(slice(i * len(prompts), (i + 1) * len(prompts))) for i, t in enumerate(moments)}


class _Moments:
    """At which t each row of the present call of the U-Net is."""

    def __init__(self, problems: ConceptProblems) -> None:
        """Of the sampler's own timesteps."""
        pipe = problems.pipe
        set_timesteps(pipe, problems.config.steps)
        adapter = adapter_of(pipe)
        self.timesteps = torch.tensor([adapter.time(pipe, float(t)) for t in pipe.scheduler.timesteps])
        self.latents, self.time = adapter.inputs
        self.t = torch.linspace(1.0, 0.0, len(self.timesteps))
        self.now = torch.empty(0)

    def hear(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = kwargs[self.latents] if self.latents in kwargs else args[0]
        timestep = torch.as_tensor(kwargs[self.time] if self.time in kwargs else args[1]).float().cpu().reshape(-1)
        nearest = (timestep[:, None] - self.timesteps[None]).abs().argmin(dim=1)
        self.now = self.t[nearest].expand(len(x)) if len(nearest) == 1 else self.t[nearest]


class _Change:
    """What is done to the updates of one site."""

    def __init__(self, method: str, dose: float, sae: SparseAutoencoder, profile: Profile) -> None:
        """See `FeatureErasers.erased`."""
        negative = method == "sae_negative"
        self.sae = sae
        self.chosen = profile.chosen(NEGATIVE_FEATURES if negative else dose).to(sae.decoder.device)
        vectors = sae.decoder.detach()[self.chosen].float()
        self.least = profile.other[self.chosen].float().to(vectors) if negative else torch.zeros(len(vectors))
        self.vectors = vectors * (1.0 + dose) if negative else vectors
        if method == "sae_replace":
            typical = sae.decoder.detach()[profile.typical(profile.chosen(dose))].float()[None]
            alike = lengths_of(vectors) / lengths_of(typical).clamp_min(1e-12)
            self.vectors = vectors - typical * alike[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        """What is taken out of updates, or outputs, [rows, cells, d]."""
        if not len(self.chosen):
            return torch.zeros_like(x)
        codes = self.sae.encode(x.flatten(0, 1).to(self.sae.encoder.dtype))
        own = (codes.values[:, :, None] * (codes.indices[:, :, None] == self.chosen)).sum(1).float()
        own = own * (own > self.least.to(own))
        return (own @ self.vectors).view_as(x)


def _hook(moments: _Moments, changes: Mapping[Site, _Change]) -> Hook:
    """Of a block: each row by the site that is nearest in t, the later in the process of two that are as near."""
    sites = sorted(changes, key=lambda site: site.t)
    places = torch.tensor([site.t for site in sites])

    def hook(passing: Passing) -> Any:
        after = passing.states()[1]
        nearest = (moments.now[:, None] - places[None]).abs().argmin(dim=1)
        taken = torch.zeros_like(cells(after))
        for number, site in enumerate(sites):
            rows = (nearest == number).nonzero().squeeze(1).to(after.device)
            if len(rows):
                taken = taken.index_add(0, rows, changes[site](cells(passing.signal(site.port))[rows]))
        return passing.replaced(after - taken.transpose(1, 2).unflatten(2, after.shape[2:]).to(after.dtype))

    return hook

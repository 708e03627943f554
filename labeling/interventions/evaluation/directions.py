"""Directions of dense activations, no autoencoder asked: what editing by features is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.sites import IMAGE, Site
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.run import LayoutRun

Directions = Mapping[Site, Mapping[str, tuple[float, ...]]]
"""By site and concept; a concept that no picture shows has none."""


class MeanDifference:
    """The mean activation in a concept's cells minus that of the same places over all pictures, batch by batch."""

    def __init__(self) -> None:
        self._inside: NDArray[np.float64] | None = None

    def add(self, dense: NDArray[np.floating], truth: Truth) -> None:
        """Activations [N, cells, d] of N pictures with masks; a cell counts as much as the concept covers of it."""
        covered = truth.pixels / truth.areas  # [N, C, cells]
        if self._inside is None:
            concepts, cells, width = covered.shape[1], covered.shape[2], dense.shape[2]
            self._inside, self._covered = np.zeros((concepts, width)), np.zeros((concepts, cells))
            self._places, self._pictures = np.zeros((cells, width)), 0
        self._inside += np.einsum("ncp,npd->cd", covered, dense, optimize=True)
        self._covered += covered.sum(axis=0)
        self._places += dense.sum(axis=0, dtype=np.float64)
        self._pictures += len(dense)

    def vectors(self) -> NDArray[np.float64]:
        """[C, d]; 0 of a concept that was never shown."""
        assert self._inside is not None
        expected = self._covered @ (self._places / self._pictures)
        vectors: NDArray[np.float64] = (self._inside - expected) / np.maximum(self._covered.sum(axis=1), 1e-12)[:, None]
        return vectors


def mean_directions(
    run: LayoutRun, pipe: Any, generation: GenerationConfig, branches: Sequence[str], images: int, batch_size: int = 8
) -> Directions:
    """The mean-difference directions of a run's concepts in what the blocks write, by site of the branches.

    The first `images` discovery pictures (by id, so at random) are sampled again, and the run's masks hold for them.

    Args:
        generation: of the run.
        images: 0 takes all.
    """
    generator = Generator(pipe, replace(generation, branches=tuple(branches), streams=(IMAGE,)))
    rows = run.of_split("discovery", images)
    sums: dict[Site, MeanDifference] = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        truths: dict[Grid, Truth] = {}

        def on_site(
            site: Site, x: Tensor, height: int, width: int,
            batch: NDArray[np.int64] = batch, truths: dict[Grid, Truth] = truths,
        ) -> None:  # fmt: skip
            if site not in run.grids:
                return  # not the run's
            if (height, width) not in truths:
                truths[height, width] = run.truth((height, width), batch)
            sums.setdefault(site, MeanDifference()).add(x.float().cpu().numpy(), truths[height, width])

        generator.sample(
            [run.prompts[i] for i in batch], [run.seeds[i] for i in batch], on_site, decode=False
        )  # fmt: skip
    return {
        site: {
            concept: tuple(float(np.float32(value)) for value in vector)
            for concept, vector in zip(run.concepts, difference.vectors(), strict=True)
            if vector.any()
        }
        for site, difference in sums.items()
    }


def plain_directions(directions: Directions) -> dict[str, dict[str, list[float]]]:
    """As JSON holds them."""
    return {site.slug: {c: list(vector) for c, vector in own.items()} for site, own in directions.items()}


def read_directions(plain: Mapping[str, Mapping[str, Sequence[float]]], sites: Iterable[Site]) -> Directions:
    """The inverse of `plain_directions`.

    sites: of the run, since a slug holds two decimals of a t that may have more.
    """
    named = {site.slug: site for site in sites}
    return {named[slug]: {c: tuple(v) for c, v in own.items()} for slug, own in plain.items()}

"""The layout inside a running pipeline: maps of every concept while the picture is still noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.diffusion.capture import capture, cells, check_inputs, split_branches
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.watch import Call
from gazetteer.labeling.evidence.site_codes import SiteCodes, flat_codes
from gazetteer.labeling.layout.model import LayoutPrediction, LayoutPredictor
from gazetteer.sae.model.maps import encode_maps

OnLayout = Callable[[LayoutPrediction], None]


@dataclass
class LiveLayout:
    """The layouts of the current (or last) call of the pipeline, by sampler step."""

    history: dict[int, LayoutPrediction] = field(default_factory=dict)

    @property
    def latest(self) -> LayoutPrediction:
        """The layout of the newest step; InputError before the first."""
        if not self.history:
            raise InputError("There is no layout yet: the pipeline has not taken a step.")
        return next(reversed(self.history.values()))


@contextmanager
def predict_layout(
    pipe: Any, labels: LayoutPredictor, on_layout: OnLayout | None = None, *, guided: bool | None = None
) -> Iterator[LiveLayout]:
    """Predict the layout at every sampler step of ``pipe(...)`` calls made inside the context.

    The pipeline computes what it would have computed; its hooks are gone when the context ends, however it ends.

    Args:
        pipe: a diffusers pipeline with a U-Net or a known transformer, with guidance or without.
        labels: of `gazetteer.labeling.layout.label_layout.layout_of_labels` or
            `gazetteer.labeling.layout.model.fit_layout`, with autoencoders.
        on_layout: called with each step's layout while the pipeline runs.
        guided: whether calls hold both branches of guidance; None asks the pipeline.
    Raises:
        InputError: the model lacks a block, `labels` has no autoencoders, or it reads a branch that is off; during
            generation: a pipeline that stacks other inputs than the branches of guidance (perturbed attention).
    """
    if not labels.saes:
        raise InputError("This layout model has no autoencoders; give the run's to use it in a pipeline.")
    live = LiveLayout()
    seen: dict[Port, Tensor] = {}
    others: set[int] = set()  # steps of which only calls of the other branch were heard
    stacked: list[tuple[int, int]] = []  # of each call that is read: inputs in its batch, inputs of one picture

    def on_signal(port: Port, call: Call, values: Tensor) -> None:
        if not call.first:
            return
        if labels.branch not in call.branches:
            others.add(call.step)
            return
        others.discard(call.step)
        parts = 2 if _halved(pipe, call, guided) else 1
        stacked.append((len(values), parts))
        seen[port] = _half(values, labels.branch, call, parts)
        if len(seen) == len(labels.ports):
            heard = dict(seen)
            seen.clear()
            step, t = call.step, call.t
            if step == 0 or step in live.history:
                live.history.clear()
            codes = {site: _codes(labels, site, heard[site.port]) for site in labels.sites_at(t)}
            live.history[step] = labels.predict(codes, t, step)
            if on_layout is not None:
                on_layout(live.history[step])

    def on_step(latents: Tensor | None) -> None:
        noted = list(stacked)
        stacked.clear()
        check_inputs(pipe, noted, latents, "layouts")

    with capture(pipe, labels.ports, on_signal, on_step=on_step):
        yield live
    if others and not live.history:
        raise _unguided(labels.branch)


def _halved(pipe: Any, call: Call, guided: bool | None) -> bool:
    """Whether a call holds both branches."""
    return len(call.branches) > 1 and (adapter_of(pipe).guided(pipe) if guided is None else guided)


def _half(values: Tensor, branch: str, call: Call, parts: int) -> Tensor:
    """The values [batch, ...] of a branch; without guidance all of a call is cond."""
    if len(call.branches) == 1:
        return values
    if len(values) % parts:
        raise InputError(f"The denoiser is given {len(values)} inputs, which are no two branches of guidance.")
    halves = split_branches(values, len(values) // parts, call.branches, parts > 1)
    if branch not in halves:
        raise _unguided(branch)
    return halves[branch]


def _unguided(branch: str) -> InputError:
    return InputError(f"This layout model reads the {branch} branch, but the pipeline runs without guidance.")


def _codes(labels: LayoutPredictor, site: Site, update: Tensor) -> SiteCodes:
    """The codes of a captured update [images, channels, h, w]."""
    height, width = update.shape[2:]
    grid = labels.grid_of(site)
    if grid is not None and (height, width) != grid:
        raise InputError(
            f"{site.block} works on {height} x {width} cells here, but the run's on {grid[0]} x {grid[1]}; "
            "ask for pictures of the run's size."
        )
    encoded = [encode_maps(labels.saes[site], cell_values[None], height, width) for cell_values in cells(update)]
    maps = [maps.fetched()[0] for maps in encoded]
    return stack_codes(site, [f"{number:08d}" for number in range(len(maps))], maps)


def stack_codes(site: Site, image_ids: list[str], maps: list[Any]) -> SiteCodes:
    """Sparse maps of several pictures at one site as flat codes."""
    grid = (maps[0].height, maps[0].width)
    return flat_codes(
        site, image_ids, grid, np.concatenate([cells.feature for cells in maps]),
        np.concatenate([cells.value for cells in maps]), np.array([len(cells.feature) for cells in maps], np.int64),
    )  # fmt: skip

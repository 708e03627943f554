"""Steer a generation: add feature vectors to what U-Net blocks write, where and when the edits say (P1 section 3.5).

    with steer(pipe, edits, saes):
        images = pipe("a dog on grass").images

Nothing of a pipeline is copied: forward hooks change what the blocks give, the sampler's step checks how pictures are
stacked, and both go when the context ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import SAE_UNITS, Edit, Target
from gazetteer.diffusion.capture import cells, states_around, width_of, with_states
from gazetteer.diffusion.schedule import Schedule
from gazetteer.diffusion.watch import Hook, hooked, network, watched
from gazetteer.sae.model.autoencoder import Codes, SparseAutoencoder
from gazetteer.sae.model.checkpoint import expect_width, load_site_saes

Saes = Mapping[Site, SparseAutoencoder]


@contextmanager
def steer(
    pipe: Any,
    edits: Sequence[Edit],
    saes: Saes | str | Path | None = None,
    *,
    schedule: Schedule | None = None,
    guided: bool | None = None,
) -> Iterator[None]:
    """While open, every generation of `pipe` is edited.

    Each edit's change is computed from the update the block really wrote, so the order of the edits does not matter.
    Inside its region an edit adds β·a·d, d the sum of its feature vectors and a what its unit says; outside it removes
    Z·f, once, however many edits ask for it, and never where another edit places the same feature (or, where it says
    so, subtracts β·a·d / 2). Edits of strength 0 and pictures no edit names are left bit for bit as they were.

    Args:
        pipe: a diffusers pipeline with a U-Net and a scheduler.
        edits: with targets (`gazetteer.labeling.interventions.resolve.resolve` turns concepts into them).
        saes: the autoencoders of the targets, or their folder; not needed for plain directions.
        schedule: of the whole process, when the pipeline runs only a part of it; None asks the scheduler.
        guided: whether U-Net batches hold an unconditional half before the conditional one; None asks the pipeline.
            With guidance off there is no such half: an edit of ``both`` then acts on the conditional one alone.

    Raises:
        InputError: an edit without targets, an unknown block, an autoencoder that is missing or does not fit, a
            feature it does not have; during generation: a place in the batch that is not there, a timestep that is
            not in the schedule, the uncond branch without guidance, or a pipeline that stacks more than the two halves.
    """
    actions = _actions(pipe.unet, [edit for edit in edits if edit.strength != 0.0], saes)
    stacked: list[
        tuple[int, int]
    ] = []  # of each edited call: inputs in its batch, inputs there should be of one picture

    def hook_for(block: str) -> Hook:
        mine = [action for action in actions if action.target.block == block]

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            due = [action for action in mine if action.edit.active(watch.now.t)]
            if not due:
                return None
            before, after = states_around(args, kwargs, output)
            halved = _is_guided(pipe) if guided is None else guided
            stacked.append((len(after), 2 if halved else 1))
            return with_states(output, _edited(after, after - before, due, halved))

        return hook

    if not actions:
        yield
        return
    blocks = sorted({action.target.block for action in actions})
    with (
        watched(pipe, schedule, partial(_check_stacking, pipe, stacked)) as watch,
        hooked(pipe.unet, {block: hook_for(block) for block in blocks}),
    ):
        yield


def _check_stacking(pipe: Any, stacked: list[tuple[int, int]], latents: Tensor | None) -> None:
    """Refuse, after the first edited step, a pipeline that gives its U-Net other inputs than an edit expects.

    One of each picture, or with guidance two; InstructPix2Pix, perturbed attention and others stack three and more.
    A hook sees the batch alone; how many pictures are drawn, the sampler's step is told.
    """
    noted = list(stacked)
    stacked.clear()
    for inputs, parts in noted:
        if latents is not None and inputs != parts * len(latents):
            raise InputError(
                f"{type(pipe).__name__} gives the U-Net {inputs} inputs for {len(latents)} pictures; edits know "
                f"pipelines that give {'an unconditional and a conditional one' if parts == 2 else 'one'} of each."
            )


@dataclass(frozen=True, eq=False)
class _Action:
    """One target of one edit, with its direction [d], float32, in the length its unit asks for."""

    edit: Edit
    target: Target
    direction: Tensor
    sae: SparseAutoencoder | None

    @property
    def source(self) -> str:
        """The half whose update the change is computed from."""
        return "uncond" if self.edit.branch == "uncond" else "cond"

    @property
    def removes(self) -> bool:
        return self.sae is not None and self.edit.outside == "remove" and not self.edit.region.everywhere


def _actions(unet: nn.Module, edits: Sequence[Edit], saes: Saes | str | Path | None) -> list[_Action]:
    unresolved = [edit.name for edit in edits if not edit.targets]
    if unresolved:
        raise InputError(f"The edit of {unresolved[0]!r} has no targets yet; resolve it with a labelled run first.")
    wanted = {target.site for edit in edits for target in edit.targets if target.features}
    widths = {target.block: width_of(unet, target.block) for edit in edits for target in edit.targets}
    if saes is None or isinstance(saes, str | Path):
        if wanted and saes is None:
            raise InputError("Edits with features need the autoencoders they belong to.")
        device = next(network(unet).parameters()).device
        saes = load_site_saes(saes, wanted, device=device) if wanted and saes is not None else {}
    missing = sorted(wanted - set(saes))
    if missing:
        raise InputError(f"There is no autoencoder for {missing[0].slug}, which an edit names.")
    for site in wanted:
        expect_width(saes[site], widths[site.block], site)
    return [
        _Action(edit, target, _direction(edit, target, saes, widths[target.block]), saes.get(target.site))
        if target.features
        else _Action(edit, target, _direction(edit, target, saes, widths[target.block]), None)
        for edit in edits
        for target in edit.targets
    ]


def _direction(edit: Edit, target: Target, saes: Saes, width: int) -> Tensor:
    if target.vector:
        if len(target.vector) != width:
            raise InputError(f"An edit's vector has {len(target.vector)} numbers, but {target.block} has {width}.")
        direction = torch.tensor(target.vector)
    else:
        sae = saes[target.site]
        if max(target.features) >= sae.config.n:
            last = max(target.features)
            raise InputError(f"The autoencoder of {target.site.slug} has {sae.config.n} features; there is no {last}.")
        vectors = sae.decoder.detach()[list(target.features)].float()
        if target.scales:
            vectors = vectors * torch.tensor(target.scales, device=vectors.device)[:, None]
        direction = vectors.sum(dim=0)
    return direction / direction.norm().clamp_min(1e-12) if edit.unit == "update_norm" else direction


def _is_guided(pipe: Any) -> bool:
    known = getattr(pipe, "do_classifier_free_guidance", None)
    if known is None:
        raise InputError(f"{type(pipe).__name__} does not say whether it uses guidance; pass guided=True or False.")
    return bool(known)


def _edited(after: Tensor, update: Tensor, due: Sequence[_Action], guided: bool) -> Tensor:
    """`after` [batch, d, h, w] with the changes added, computed from `update` of the same shape."""
    images = update.shape[0] // 2 if guided else update.shape[0]
    starts = {"uncond": 0, "cond": images} if guided else {"cond": 0}
    out = after.clone()
    for source in ("cond", "uncond"):
        mine = [action for action in due if action.source == source]
        if not mine:
            continue
        if source not in starts:
            raise InputError("An edit acts on the uncond branch, but this generation runs without guidance.")
        grid = (update.shape[2], update.shape[3])
        x = cells(update[starts[source] : starts[source] + images])
        for branch, change in _changes(x, grid, mine).items():
            rows = _rows([action for action in mine if action.edit.branch == branch], images)
            add = change[rows].transpose(1, 2).unflatten(2, grid).to(out.device, out.dtype)
            place = torch.tensor(rows, device=out.device)
            out.index_add_(0, place + starts[source], add)
            if branch == "both" and guided:
                out.index_add_(0, place + starts["uncond"], -add)
    return out


def _changes(x: Tensor, grid: tuple[int, int], actions: Sequence[_Action]) -> dict[str, Tensor]:
    """The change [images, cells, d] of each kind of branch, from the updates x of one half."""
    read = {
        action.target.site: action.sae
        for action in actions
        if action.sae is not None and (action.removes or action.edit.unit in SAE_UNITS)
    }
    codes = {site: _encode(sae, x) for site, sae in read.items()}  # each once, however many actions ask for it
    changes: dict[str, Tensor] = {}
    for action in actions:
        change = changes.setdefault(action.edit.branch, torch.zeros_like(x))
        rows = _rows([action], len(x))
        inside = torch.from_numpy(action.edit.region.grid(*grid).reshape(-1)).to(x.device)
        if action.edit.unit == "code":
            added = _active(action, codes[action.target.site], rows).to(x.device)
            change[rows] += action.edit.strength * inside[:, None] * added
            continue
        amount = _amount(action.edit.unit, x[rows], codes.get(action.target.site), rows) * action.edit.strength
        here = inside * 1.5 - 0.5 if action.edit.outside == "subtract" else inside
        change[rows] += (amount * here)[:, :, None] * action.direction.to(x.device)
    for site in sorted({action.target.site for action in actions if action.removes}):
        sharing = [action for action in actions if action.sae is not None and action.target.site == site]
        for branch, removed in _removed(codes[site], grid, sharing).items():
            changes[branch] -= removed.to(x.device)
    return changes


def _amount(unit: str, x: Tensor, codes: Codes | None, rows: Sequence[int]) -> Tensor:
    """What one unit of strength is in each cell, [rows, cells]."""
    if unit == "update_norm":
        return x.norm(dim=2)
    if unit in ("code_norm", "code_norm_share"):
        assert codes is not None
        norms = codes.values[list(rows)].norm(dim=2).to(x.device)
        return norms if unit == "code_norm" else norms / norms.sum(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.ones(x.shape[:2], device=x.device)


def _active(action: _Action, codes: Codes, rows: Sequence[int]) -> Tensor:
    """Σ Z·f of the target's features in each cell, [rows, cells, d]."""
    assert action.sae is not None
    features = list(action.target.features)
    values, indices = codes.values[list(rows)], codes.indices[list(rows)]
    own = torch.stack([(values * (indices == feature)).sum(dim=2) for feature in features], dim=2)
    return own @ action.sae.decoder.detach()[features].float()


def _removed(codes: Codes, grid: tuple[int, int], actions: Sequence[_Action]) -> dict[str, Tensor]:
    """Σ Z·f of what each kind of branch takes away outside the regions, [images, cells, d]."""
    images, count, _ = codes.values.shape
    sae = actions[0].sae
    assert sae is not None
    used = sorted({feature for action in actions for feature in action.target.features})
    place = {feature: i for i, feature in enumerate(used)}
    device = codes.values.device
    wanted: dict[str, Tensor] = {}
    taken = torch.zeros(images, count, len(used), dtype=torch.bool, device=device)
    for action in actions:  # where any edit places a feature, none takes it away
        inside = torch.from_numpy(action.edit.region.grid(*grid).reshape(-1)).to(device)
        columns = torch.zeros(len(used), dtype=torch.bool, device=device)
        columns[[place[feature] for feature in action.target.features]] = True
        rows = _rows([action], images)
        taken[rows] |= (inside[:, None] & columns)[None]
        if action.removes:
            mask = wanted.setdefault(action.edit.branch, torch.zeros_like(taken))
            mask[rows] |= (~inside[:, None] & columns)[None]
    dense = torch.zeros(images * count, sae.config.n, device=device)
    dense.scatter_add_(1, codes.indices.flatten(0, 1), codes.values.flatten(0, 1).float())
    values = dense[:, used].unflatten(0, (images, count))
    vectors = sae.decoder.detach()[used].float()
    removed: dict[str, Tensor] = {}
    for branch in sorted(wanted):  # "both" first: what it removes is not removed a second time
        removed[branch] = (values * (wanted[branch] & ~taken)) @ vectors
        taken |= wanted[branch]
    return removed


def _rows(actions: Sequence[_Action], images: int) -> list[int]:
    """The pictures these actions change."""
    if any(not action.edit.images for action in actions):
        return list(range(images))
    rows = sorted({image for action in actions for image in action.edit.images})
    if rows and rows[-1] >= images:
        raise InputError(f"An edit names picture {rows[-1]} (from 0) of a batch of {images}.")
    return rows


@torch.no_grad()
def _encode(sae: SparseAutoencoder, x: Tensor) -> Codes:
    """Codes of the updates [images, cells, d], with values and indices [images, cells, slots]."""
    flat = x.flatten(0, 1).to(sae.encoder.device, sae.encoder.dtype)
    with torch.autocast(flat.device.type, enabled=False):  # in bfloat16 many activations tie
        values, indices = sae.encode(flat)
    return Codes(values.float().unflatten(0, x.shape[:2]), indices.unflatten(0, x.shape[:2]))

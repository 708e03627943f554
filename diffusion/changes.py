"""What edits change at one place of a network, from what it wrote there: directions, amounts, what is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edits import SAE_UNITS, Edit, Target
from gazetteer.sae.model.autoencoder import Codes, SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Action:
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
        """Whether the features are taken away outside of the region."""
        return self.sae is not None and self.edit.outside == "remove" and not self.edit.region.everywhere

    @cached_property
    def shares(self) -> Tensor:
        """How much of each feature's activation `removes` takes away, [features]: all of it without scales.

        By its scale in the unit that weighs vectors at unit length, the largest wholly: a choice that weighs every
        feature would else take everything away. In other units scales are lengths or percentiles.
        """
        scales = torch.tensor(self.target.scales).abs()
        if not len(scales) or self.edit.unit != "update_norm" or not scales.any():
            return torch.ones(len(self.target.features))
        return scales / scales.max()


def changes_of(
    x: Tensor, grid: tuple[int, int], actions: Sequence[Action], read: Tensor | None = None
) -> dict[str, Tensor]:
    """The change [images, cells, d] of each kind of branch, from the updates x of one half.

    read: bool [images, cells], the places that may change and whose codes count; None: all.
    """
    reading = {
        action.target.site: action.sae
        for action in actions
        if action.sae is not None and (action.removes or action.edit.unit in SAE_UNITS)
    }
    codes = {site: _encode(sae, x) for site, sae in reading.items()}  # each once, however many actions ask for it
    if read is not None:
        codes = {site: Codes(z.values * read.to(z.values.device)[..., None], z.indices) for site, z in codes.items()}
    changes: dict[str, Tensor] = {}
    for action in actions:
        change = changes.setdefault(action.edit.branch, torch.zeros_like(x))
        rows = rows_of([action], len(x))
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
    return changes if read is None else {branch: change * read[..., None] for branch, change in changes.items()}


def _amount(unit: str, x: Tensor, codes: Codes | None, rows: Sequence[int]) -> Tensor:
    """What one unit of strength is in each cell, [rows, cells]."""
    if unit == "update_norm":
        return x.norm(dim=2)
    if unit in ("code_norm", "code_norm_share"):
        assert codes is not None
        norms = codes.values[list(rows)].norm(dim=2).to(x.device)
        return norms if unit == "code_norm" else norms / norms.sum(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.ones(x.shape[:2], device=x.device)


def _active(action: Action, codes: Codes, rows: Sequence[int]) -> Tensor:
    """Σ Z·f of the target's features in each cell, [rows, cells, d]."""
    assert action.sae is not None
    features = list(action.target.features)
    values, indices = codes.values[list(rows)], codes.indices[list(rows)]
    own = torch.stack([(values * (indices == feature)).sum(dim=2) for feature in features], dim=2)
    return own @ action.sae.decoder.detach()[features].float()


def _removed(codes: Codes, grid: tuple[int, int], actions: Sequence[Action]) -> dict[str, Tensor]:
    """Σ Z·f of what each kind of branch takes away outside the regions, [images, cells, d]."""
    images, count, _ = codes.values.shape
    sae = actions[0].sae
    assert sae is not None
    used = sorted({feature for action in actions for feature in action.target.features})
    place = {feature: i for i, feature in enumerate(used)}
    device = codes.values.device
    wanted: dict[str, Tensor] = {}  # shares of the activations that are to go
    gone = torch.zeros(images, count, len(used), device=device)  # shares that went already
    placed = torch.zeros_like(gone)  # shares that edits place, which none takes away
    for action in actions:
        inside = torch.from_numpy(action.edit.region.grid(*grid).reshape(-1)).to(device)
        shares = torch.zeros(len(used), device=device)
        shares[[place[feature] for feature in action.target.features]] = action.shares.to(device)
        rows = rows_of([action], images)
        here = (inside[:, None] * shares)[None]
        if action.edit.strength > 0.0:
            placed[rows] = torch.maximum(placed[rows], here)
        elif action.edit.unit == "code":  # what is switched off already goes no second time
            gone[rows] -= action.edit.strength * here
        if action.removes:
            share = wanted.setdefault(action.edit.branch, torch.zeros_like(gone))
            share[rows] = torch.maximum(share[rows], (~inside[:, None] * shares)[None])
    dense = torch.zeros(images * count, sae.config.n, device=device)
    dense.scatter_add_(1, codes.indices.flatten(0, 1), codes.values.flatten(0, 1).float())
    values = dense[:, used].unflatten(0, (images, count))
    vectors = sae.decoder.detach()[used].float()
    removed: dict[str, Tensor] = {}
    for branch in sorted(wanted):  # "both" first: what it removes is not removed a second time
        share = (wanted[branch] - placed - gone).clamp_min(0.0)
        removed[branch] = (values * share) @ vectors
        gone += share
    return removed


def rows_of(actions: Sequence[Action], images: int) -> list[int]:
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

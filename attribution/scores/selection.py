"""Which weights are scored, and which of them are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from gazetteer.attribution.objective.problem import check_here
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Fraction, OneOf, settings
from gazetteer.diffusion.denoisers.registry import adapter_of

SCOPES = ("ff", "cross", "self", "conv", "all")
PER = ("row", "layer", "global")
SIGNS = ("positive", "negative", "both")
Chosen = dict[str, Tensor]
"""Flat int64 indices into each parameter, ascending; parameters with none are absent."""


_PARTS = {
    "ff": ("ff", "ff_context", "proj_mlp"),
    "cross": ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    "self": ("attn",),
}
"""By what part of a name a parameter is told; where attention is joint, ``cross`` is the text's projections."""
_SAYING = ("attn1", "attn2")
"""Attention that says itself whether it reads the text: a second one of SD 3.5's blocks reads the picture again."""


TopFraction = Annotated[float, Gt(0), Le(1)]
"""A fraction that a user names: it takes something."""


@settings("")
class Selection:
    """Which weights to take by score.

    Attributes:
        fraction: of the weights of each row, of each layer, or of all together.
        per: ``row`` (one output neuron of one layer), ``layer`` or ``global``.
        sign: ``positive`` takes the highest scores and only those > 0; ``negative`` the lowest and only those < 0;
            ``both`` the largest in absolute value.
    """

    fraction: Fraction = 0.001
    per: Annotated[str, OneOf(PER)] = "row"
    sign: Annotated[str, OneOf(SIGNS)] = "positive"


@dataclass(frozen=True)
class Preset:
    """A published choice of scope and fraction."""

    scope: str
    selection: Selection


PRESETS = {"cad": Preset("ff", Selection(0.001, "row", "positive"))}
"""``cad``: the released code's default, 2-D feed-forward weights, int(0.001 · inputs) of every row, only if > 0.

At that fraction rows with fewer than 1,000 inputs give up nothing, as in the reference."""


def scope_weights(unet: nn.Module, scope: str) -> dict[str, nn.Parameter]:
    """The weights of a scope, by name: matrices and kernels, no vectors (biases, gains of norms).

    ``ff``: 2-D weights of feed-forward layers (as the reference: 'ff' in the name); ``cross``, ``self``: the
    projections of cross- and self-attention, of joint attention those of the text and of the picture; ``conv``: 4-D
    kernels; ``all``: all of these and every other 2-D weight, those that embed time and text or modulate norms among
    them.

    Raises:
        InputError: an unknown scope, one without weights in this model, or weights that are elsewhere (`check_here`).
    """
    if scope not in SCOPES:
        raise InputError(f"scope is {scope!r}; accepted: {', '.join(SCOPES)}.")
    check_here(unet)
    dims = {"conv": (4,), "all": (2, 4)}.get(scope, (2,))
    named = ((name, w) for name, w in unet.named_parameters() if w.ndim in dims)
    parameters = {name: w for name, w in named if scope not in _PARTS or part_of(unet, name) == scope}
    if not parameters:
        raise InputError(f"The {adapter_of(unet).kind} has no weights in the scope {scope}.")
    return parameters


def part_of(unet: nn.Module, name: str) -> str:
    """``ff``, ``cross`` or ``self`` where a parameter's name or the attention it belongs to says it, else empty."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part in _SAYING:
            attention = unet.get_submodule(".".join(parts[: place + 1]))
            return "cross" if getattr(attention, "is_cross_attention", part == "attn2") else "self"
    return next((kind for kind, words in _PARTS.items() if any(word in parts for word in words)), "")


def select(scores: Mapping[str, Tensor], selection: Selection) -> Chosen:
    """The weights with the strongest scores; ties go to the lower index.

    Args:
        scores: per parameter, any shape [rows, ...].
    """
    strengths = {name: _strength(score, selection.sign) for name, score in scores.items()}
    if selection.per == "global":
        flat = torch.cat([s.reshape(-1) for s in strengths.values()]).reshape(1, -1)
        picked = _top(flat, selection.fraction)
        sizes = [s.numel() for s in strengths.values()]
        starts = torch.tensor([0, *sizes]).cumsum(0)
        chosen = {
            name: picked[(picked >= start) & (picked < stop)] - start
            for name, start, stop in zip(strengths, starts[:-1], starts[1:], strict=True)
        }
    else:
        rows = {n: s.flatten(1) if selection.per == "row" else s.reshape(1, -1) for n, s in strengths.items()}
        chosen = {name: _top(table, selection.fraction) for name, table in rows.items()}
    return {name: index for name, index in chosen.items() if len(index)}


@dataclass(frozen=True)
class Supply:
    """How many weights a selection asks for, and how many could be taken.

    Attributes:
        asked: int(fraction · weights) of every row or layer, or of all.
        eligible: weights with a score of the selection's sign; no other is ever taken.
        taken: what `select` takes.
        sign: of the selection.
    """

    asked: int
    eligible: int
    taken: int
    sign: str

    @property
    def short(self) -> str:
        """Why fewer are taken than were asked for; empty where as many are."""
        if self.taken >= self.asked:
            return ""
        kind = {"positive": "positive", "negative": "negative", "both": "nonzero"}[self.sign]
        spread = ", but too few in some rows or layers" if self.eligible > self.taken else ""
        return (
            f"asked for {self.asked} weights, takes {self.taken}: only weights of {kind} score are taken, "
            f"and {self.eligible} have one{spread}"
        )


def asked(weights: Mapping[str, Tensor], selection: Selection) -> int:
    """How many weights a selection asks for: int(fraction · weights) of every row or layer, or of all."""
    sizes = [(len(w), w.numel() // len(w)) if selection.per == "row" else (1, w.numel()) for w in weights.values()]
    if selection.per == "global":
        sizes = [(1, sum(columns for _, columns in sizes))]
    return sum(rows * _wanted(columns, selection.fraction) for rows, columns in sizes)


def require_some(weights: Mapping[str, Tensor], selection: Selection, instead: str = "") -> None:
    """Raise InputError, before anything is scored, where a selection asks for none of these weights.

    instead: what to do; empty: another fraction, or one per layer.
    """
    if asked(weights, selection):
        return
    least, per = f"{1 / selection.fraction:.0f}" if selection.fraction else "infinitely many", selection.per
    each = {"row": "a row", "layer": "a layer", "global": "a scope"}[per]
    instead = instead or f"raise --fraction{' or use --per layer' if per == 'row' else ''}"
    raise InputError(
        f"A fraction of {selection.fraction} per {per} takes no weight here ({each} of fewer than {least} weights "
        f"gives up none); {instead}."
    )


def supply(scores: Mapping[str, Tensor], selection: Selection, chosen: Mapping[str, Tensor]) -> Supply:
    """What a selection asks of these scores, and what there is; `chosen` is what `select` gives of them."""
    wanted = asked(scores, selection)
    eligible = sum(int((_strength(score, selection.sign) > 0).sum()) for score in scores.values())
    return Supply(wanted, eligible, count(chosen), selection.sign)


def random_like(chosen: Mapping[str, Tensor], weights: Mapping[str, Any], seed: int) -> Chosen:
    """As many weights of each parameter, drawn at random: a control with an equal count and layer profile."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return {
        name: torch.randperm(weights[name].numel(), generator=generator)[: len(index)].sort().values
        for name, index in chosen.items()
    }


def count(chosen: Mapping[str, Tensor]) -> int:
    """How many weights are chosen."""
    return sum(len(index) for index in chosen.values())


def jaccard(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """|A ∩ B| / |A ∪ B| of two choices of weights, 0 when both are empty."""
    shared = sum(len(set(first[n].tolist()) & set(second[n].tolist())) for n in first.keys() & second.keys())
    union = count(first) + count(second) - shared
    return shared / union if union else 0.0


def _strength(score: Tensor, sign: str) -> Tensor:
    score = score.detach().float().cpu()
    return score if sign == "positive" else -score if sign == "negative" else score.abs()


def _wanted(columns: int, fraction: float) -> int:
    return int(fraction * columns + 1e-9)


def _top(table: Tensor, fraction: float) -> Tensor:
    """Flat indices of the int(fraction · columns) highest entries > 0 of every row of [rows, columns], ascending."""
    wanted = _wanted(table.shape[1], fraction)
    if not wanted:
        return torch.empty(0, dtype=torch.int64)
    order = table.sort(dim=1, descending=True, stable=True).indices[:, :wanted]
    flat = (order + torch.arange(len(table)).unsqueeze(1) * table.shape[1]).reshape(-1)
    return flat[table.reshape(-1)[flat] > 0].sort().values

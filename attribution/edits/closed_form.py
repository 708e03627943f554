"""Unified concept editing (UCE; Gandikota et al., 2308.14761, eq. 7): keys and values of a name in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gazetteer.attribution.edits.delta import Delta, difference
from gazetteer.attribution.objective.trajectory import conditioning
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of, network

WORDS, POOLED = "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"
"""Of SD 3 and FLUX.1: what embeds the encoders' words, and their pooled text."""


def rewritten(weight: Tensor, moved: tuple[Tensor, Tensor], unchanged: Tensor, ridge: float) -> Tensor:
    """The W' that minimises Σ ‖W' c − W g‖² + Σ ‖W' k − W k‖² + ridge ‖W' − W‖², float32 [out, d].

    Args:
        weight: W, [out, d].
        moved: c and g, [n, d] each: what is moved, and where to.
        unchanged: k, [m, d]: what stays.
        ridge: above 0, so that there is one solution.
    """
    # On the CPU: not every device has float64, and the matrices are only as wide as the text's embedding.
    source, goal, stays, old = (tensor.detach().to("cpu", torch.float64) for tensor in (*moved, unchanged, weight))
    still = ridge * torch.eye(old.shape[1], dtype=torch.float64) + stays.T @ stays
    solved = torch.linalg.solve(still + source.T @ source, (still + goal.T @ source).T)
    return (old @ solved.T).float()


def name_embeddings(pipe: Any, names: Sequence[str]) -> Tensor:
    """What cross-attention, or joint attention, reads at the last token of each name (of nothing: at the start).

    Returns:
        [names, encoders, d]: where several encoders' texts follow one another (SD 3), the last token of each.

    Raises:
        InputError: a pipeline without a tokenizer, or whose denoiser reads no text.
    """
    tokenizer, states = getattr(pipe, "tokenizer", None), conditioning(pipe, names).get("encoder_hidden_states")
    if tokenizer is None or states is None:
        raise InputError("uce needs a pipeline with a tokenizer and a denoiser that reads text.")
    if (adapter := adapter_of(pipe)) is UNET:
        ids = tokenizer(list(names), truncation=True, max_length=states.shape[1])["input_ids"]
        last = [[len(tokens) - 2] for tokens in ids]
    else:
        last = [_last_words(adapter.tokens(pipe, name).read) for name in names]
    return torch.stack([of[places] for of, places in zip(states, last, strict=True)]).float()


def _last_words(read: Sequence[bool]) -> list[int]:
    """Of every run of places that hold a text the one before its end token; the first where there is none."""
    ends = [place for place, holds in enumerate(read) if holds and not any(read[place + 1 : place + 2])]
    starts = [place for place, holds in enumerate(read) if holds and (place == 0 or not read[place - 1])]
    return [max(start, end - 1) for start, end in zip(starts, ends, strict=True)]


def concept_edit(
    pipe: Any, weights: Mapping[str, Tensor], concept: str, base: str, unchanged: Sequence[str], *,
    ridge: float = 0.5, provenance: dict[str, Any] | None = None,
) -> Delta:  # fmt: skip
    """The edit after which the keys and values of a concept's name are those of the base.

    Joint attention reads what its blocks have made of the text; there, as in the published code for FLUX, it is what
    embeds the words, and the pooled text, that is rewritten.

    Args:
        weights: of cross-attention, by name; those called ``to_k`` and ``to_v`` are rewritten. Of a model with joint
            attention they are not asked.
        concept, base, unchanged: prompts; those unchanged go on as before. All weigh 1, as in the published code.
        ridge: the published default.

    Raises:
        InputError: no such weights, or a pipeline that does not fit (`name_embeddings`).
    """
    names = [concept, base, *unchanged]
    words: dict[str, Tensor]
    if adapter_of(pipe) is UNET:
        words = {name: w for name, w in weights.items() if name.endswith(("to_k.weight", "to_v.weight"))}
        pooled: dict[str, Tensor] = {}
        if not words:
            raise InputError("uce rewrites keys and values of cross-attention, of which this scope has none.")
    else:
        own = scope_weights(network(pipe), "all")
        words = {WORDS: own[WORDS]}
        pooled = {POOLED: own[POOLED]}
    after = _rewritten_all(words, name_embeddings(pipe, names), ridge)
    if pooled:
        after |= _rewritten_all(pooled, conditioning(pipe, names)["pooled_projections"].float()[:, None], ridge)
    return difference({**words, **pooled}, after, provenance or {})


def _rewritten_all(weights: Mapping[str, Tensor], embeddings: Tensor, ridge: float) -> dict[str, Tensor]:
    """`rewritten` of each, for embeddings [names, n, d] of the concept, of the base, and of what stays."""
    moved, stays = (embeddings[0], embeddings[1]), embeddings[2:].flatten(0, 1)
    return {name: rewritten(weight, moved, stays, ridge).to(weight.dtype) for name, weight in weights.items()}

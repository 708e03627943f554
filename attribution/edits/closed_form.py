"""Unified concept editing (UCE; Gandikota et al., 2308.14761, eq. 7): keys and values of a name in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gazetteer.attribution.edits.delta import Delta, difference
from gazetteer.attribution.objective.trajectory import conditioning
from gazetteer.data.core.errors import InputError


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
    """What cross-attention reads at the last token of each name (of nothing: at the start), [names, d].

    Raises:
        InputError: a pipeline without a tokenizer, or whose U-Net reads no text.
    """
    tokenizer, states = getattr(pipe, "tokenizer", None), conditioning(pipe, names).get("encoder_hidden_states")
    if tokenizer is None or states is None:
        raise InputError("uce needs a pipeline with a tokenizer and a U-Net that reads text.")
    most = states.shape[1]
    last = [len(ids) - 2 for ids in tokenizer(list(names), truncation=True, max_length=most)["input_ids"]]
    return states[torch.arange(len(names)), last].float()


def concept_edit(
    pipe: Any, weights: Mapping[str, Tensor], concept: str, base: str, unchanged: Sequence[str], *,
    ridge: float = 0.5, provenance: dict[str, Any] | None = None,
) -> Delta:  # fmt: skip
    """The edit after which the keys and values of a concept's name are those of the base.

    Args:
        weights: of cross-attention, by name; those called ``to_k`` and ``to_v`` are rewritten.
        concept, base, unchanged: prompts; those unchanged go on as before. All weigh 1, as in the published code.
        ridge: the published default.

    Raises:
        InputError: no such weights, or a pipeline that does not fit (`name_embeddings`).
    """
    read = {name: w for name, w in weights.items() if name.endswith(("to_k.weight", "to_v.weight"))}
    if not read:
        raise InputError("uce rewrites keys and values of cross-attention, of which this scope has none.")
    embeddings = name_embeddings(pipe, [concept, base, *unchanged])
    after = {
        name: rewritten(w, (embeddings[:1], embeddings[1:2]), embeddings[2:], ridge).to(w.dtype)
        for name, w in read.items()
    }  # fmt: skip
    return difference(read, after, provenance or {})

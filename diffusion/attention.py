"""Cross-attention maps of a U-Net while it runs: how much each cell looks at each word (as in DAAM, arXiv 2210.04885).

The probabilities are computed beside the model, from the inputs of each cross-attention layer and its own
projections, so the attention implementation in use (fused or not) is neither replaced nor slowed where nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of, network
from gazetteer.diffusion.watch import Call, Hook, Passing, hooked, watched

OnAttention = Callable[[str, Call, Tensor], None]


def cross_attention_layers(unet: nn.Module) -> list[str]:
    """The paths of every cross-attention layer of the transformer blocks, in module order."""
    return [name for name, _ in network(unet).named_modules() if name.rsplit(".", 1)[-1] == "attn2"]


def attends(pipe: Any) -> bool:
    """Whether `capture_attention` has maps to give: a U-Net's, of layers of their own; transformers join words in."""
    return adapter_of(pipe) is UNET and bool(cross_attention_layers(pipe))


@contextmanager
def capture_attention(
    pipe: Any, on_attention: OnAttention, wanted: Callable[[Call], bool] | None = None
) -> Iterator[None]:
    """While open, call ``on_attention(layer, call, maps)`` for each cross-attention layer of each U-Net call of `pipe`.

    `maps` is float32 [batch, cells, tokens], the softmax over tokens averaged over heads; with guidance the batch
    holds the unconditional half first. The hooks are gone when the context ends, however it ends.

    Args:
        wanted: capture only at these calls; None captures at all.

    Raises:
        InputError: during generation, as `gazetteer.diffusion.capture.capture_updates`.
    """

    def hook_for(path: str) -> Hook:
        def hook(passing: Passing) -> None:
            kwargs = passing.call.kwargs
            words = kwargs.get("encoder_hidden_states")
            if words is None or (wanted is not None and not wanted(watch.now)):
                return
            cells = passing.call.argument("hidden_states", 0)
            on_attention(path, watch.now, _probabilities(passing.call.block, cells, words))

        return hook

    if adapter_of(pipe) is not UNET:
        raise InputError(f"Cross-attention is read of U-Nets alone, not of {type(pipe).__name__}.")
    layers = {path: hook_for(path) for path in cross_attention_layers(pipe)}
    with watched(pipe) as watch, hooked(pipe, layers, before=True):
        yield


@torch.no_grad()
def _probabilities(layer: Any, cells: Tensor, words: Tensor) -> Tensor:
    """Softmax over tokens of the layer's scaled products, mean over heads: float32 [batch, cells, tokens]."""
    query, key = layer.to_q(cells), layer.to_k(words)
    batch, count, width = query.shape
    query = query.view(batch, count, layer.heads, width // layer.heads).transpose(1, 2).float()
    key = key.view(batch, key.shape[1], layer.heads, width // layer.heads).transpose(1, 2).float()
    return (query @ key.transpose(2, 3) * layer.scale).softmax(dim=-1).mean(dim=1)


def token_places(tokenizer: Any, prompt: str, forms: tuple[str, ...]) -> list[int]:
    """Places in the tokenised prompt at which one of the `forms` of a word stands; empty when none does."""
    most = getattr(tokenizer, "model_max_length", None)
    sequence = list(tokenizer(prompt, truncation=True, max_length=most).input_ids)
    places: set[int] = set()
    for form in forms:
        wanted = list(tokenizer(form, add_special_tokens=False).input_ids)
        for start in range(len(sequence) - len(wanted) + 1 if wanted else 0):
            if sequence[start : start + len(wanted)] == wanted:
                places |= set(range(start, start + len(wanted)))
    return sorted(places)

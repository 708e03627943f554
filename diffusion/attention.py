"""Cross-attention maps of a U-Net while it runs: how much each cell looks at each word (as in DAAM, arXiv 2210.04885).

The probabilities are computed beside the model, from the inputs of each cross-attention layer and its own
projections, so the attention implementation in use (fused or not) is neither replaced nor slowed where nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

OnAttention = Callable[[str, int, Tensor], None]


def cross_attention_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """Every cross-attention layer of the transformer blocks, by path, in module order."""
    return {name: module for name, module in unet.named_modules() if name.rsplit(".", 1)[-1] == "attn2"}


@contextmanager
def capture_attention(
    unet: nn.Module, on_attention: OnAttention, timesteps: frozenset[int] | None = None
) -> Iterator[None]:
    """While open, call ``on_attention(layer, timestep, maps)`` for each cross-attention layer of each U-Net call.

    `maps` is float32 [batch, cells, tokens], the softmax over tokens averaged over heads; with guidance the batch
    holds the unconditional half first. The hooks are gone when the context ends, however it ends.

    Args:
        timesteps: capture only at these; None captures at all.
    """
    now: list[int] = []

    def remember_timestep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = kwargs["timestep"] if "timestep" in kwargs else args[1]
        now[:] = [int(value.flatten()[0] if isinstance(value, Tensor) else value)]

    def hook_for(path: str) -> Callable[..., None]:
        def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            words = kwargs.get("encoder_hidden_states")
            if words is None or (timesteps is not None and now[0] not in timesteps):
                return
            cells = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            on_attention(path, now[0], _probabilities(layer, cells, words))

        return hook

    with ExitStack() as hooks:
        hooks.callback(unet.register_forward_pre_hook(remember_timestep, with_kwargs=True).remove)
        for path, layer in cross_attention_layers(unet).items():
            hooks.callback(layer.register_forward_pre_hook(hook_for(path), with_kwargs=True).remove)
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

"""Joint attention for training: the 256 empty places of the pipeline's text are worked out once instead of 256 times.

Where there is no T5, `StableDiffusion3Pipeline` puts 256 zeros in the place of its words. They enter every block alike
and know no position, so that they stay alike: one of them, with the logarithm of 256 added to what every query makes of
its key, takes the part of them all in each softmax. Of the 352 tokens of a picture 97 remain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH


class JointAttention:
    """A processor for `diffusers.SD3Transformer2DModel`, plain matrix products in the dtype that they come in.

    On a CPU they beat the fused attention's backward pass at this size.

    Attributes:
        empty: places that what follows the words of the prompt stands for, however many they are; a tensor [], so that
            another number of them is no other program to a compiler.
    """

    def __init__(self, empty: int, device: str = "cpu") -> None:
        self.empty = torch.tensor(float(empty), device=device)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> tuple[Tensor, Tensor]:
        """Cells [B, N, width] and words [B, M, width], of which the first MAX_LENGTH are the prompt's."""
        cells = hidden_states.shape[1]
        query, key, value = (
            torch.cat([_heads(attn, of_cells, hidden_states), _heads(attn, of_words, encoder_hidden_states)], dim=2)
            for of_cells, of_words in (
                (attn.to_q, attn.add_q_proj), (attn.to_k, attn.add_k_proj), (attn.to_v, attn.add_v_proj),
            )
        )  # fmt: skip
        query = torch.cat([attn.norm_q(query[:, :, :cells]), attn.norm_added_q(query[:, :, cells:])], dim=2)
        key = torch.cat([attn.norm_k(key[:, :, :cells]), attn.norm_added_k(key[:, :, cells:])], dim=2)
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)
        extra = encoder_hidden_states.shape[1] - MAX_LENGTH
        weight = (self.empty / extra).log().to(scores).expand(extra)
        scores = scores + torch.cat([scores.new_zeros(scores.shape[-1] - extra), weight])
        with torch.autocast(scores.device.type, enabled=False):  # which would work out the softmax in float32
            mixed = scores.softmax(dim=-1) @ value.to(scores.dtype)
        mixed = mixed.transpose(1, 2).flatten(2)
        of_cells, of_words = mixed[:, :cells], mixed[:, cells:]
        of_cells = attn.to_out[0](of_cells)
        return of_cells, of_words if attn.context_pre_only else attn.to_add_out(of_words)


def _heads(attn: Any, layer: Any, states: Tensor) -> Tensor:
    """[B, N, width] -> [B, heads, N, width of a head]."""
    projected: Tensor = layer(states)
    return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

"""Multi-scale deformable attention for small feature maps, several times faster on a CPU.

The library samples every point with `grid_sample` and multiplies a [batch * heads, channels,
queries, points] tensor by the attention weights, which takes half of a training step here.
With a few hundred cells in all, it is cheaper to write the bilinear weights of every point into
a dense [queries, cells] matrix and to multiply once. The result is the same up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dense_deformable_attention(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Bilinear sampling with zero padding, weighted and summed over levels and points.

    value: [batch, cells, heads, channels], cells of all levels one after another.
    shapes: (height, width) of every level.
    locations: [batch, queries, heads, levels, points, 2], x and y in 0..1 of the image.
    weights: [batch, queries, heads, levels, points].
    Returns [batch, queries, heads * channels].
    """
    batch, cells, heads, channels = value.shape
    queries = locations.shape[1]
    locations = locations.float().transpose(1, 2)
    weights = weights.float().transpose(1, 2)
    size = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float32)
    start = torch.tensor([0] + [h * w for h, w in shapes]).cumsum(0)[:-1, None]
    pixel = locations * size[:, None] - 0.5  # [batch, heads, queries, levels, points, 2]
    low = pixel.detach().floor()
    fraction = pixel - low
    low_x, low_y = low.unbind(-1)
    right, below = fraction.unbind(-1)
    width, height = size[:, 0:1], size[:, 1:2]
    indices, corners = [], []
    for y, weight_y in ((low_y, 1 - below), (low_y + 1, below)):
        for x, weight_x in ((low_x, 1 - right), (low_x + 1, right)):
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            indices.append(torch.where(inside, y * width + x, 0).long() + start)
            corners.append(weight_y * weight_x * weights * inside)
    index = torch.stack(indices, -1).flatten(-3)
    corner = torch.stack(corners, -1).flatten(-3)
    matrix = corner.new_zeros(batch, heads, queries, cells).scatter_add(-1, index, corner)
    return (matrix @ value.transpose(1, 2).to(matrix.dtype)).transpose(1, 2).reshape(batch, queries, heads * channels)


class DenseDeformableAttention(nn.Module):
    """Takes the place of the library's sampling module during training (no parameters)."""

    def forward(
        self, value: Tensor, spatial_shapes: Tensor, spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor, sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int,
    ) -> Tensor:  # fmt: skip
        """Same arguments and result as `MultiScaleDeformableAttention.forward`."""
        return dense_deformable_attention(value, spatial_shapes_list, sampling_locations, attention_weights)


def use_dense_attention(model: nn.Module) -> None:
    """Swap the sampling modules of every deformable attention in `model`, in place."""
    for module in list(model.modules()):
        if type(getattr(module, "attn", None)).__name__ == "MultiScaleDeformableAttention":
            module.attn = DenseDeformableAttention()

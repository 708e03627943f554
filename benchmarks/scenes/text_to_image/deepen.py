"""Give a trained U-Net of one layer a block a second one, which changes nothing until it is trained.

The world's began with one layer; its averages after 22,000 steps are kept so, and a training that finds them goes on
with two. New layers add 0: of a residual block the second convolution is 0 and the shortcut hands on what comes from
below, of an attention block the last projection is 0 (as in Chen et al. 2016, "Net2Net", for residual networks).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

from benchmarks.scenes.text_to_image.model import build_unet

_PART = re.compile(r"(?P<block>(?:down|up)_blocks\.\d)\.(?P<kind>resnets|attentions)\.(?P<number>\d)\.(?P<rest>.+)")


def deepened(shallow: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same function by a network of two layers a block.

    On the way down the new layer is each block's second; its output, equal to the first one's, is what the first layer
    on the way up gets beside its input. There the new layer is the second of three.
    """
    deep = build_unet()
    state, old = deep.state_dict(), shallow.state_dict()
    for name in state:
        source = _source(name)
        state[name] = old[source] if source else _nothing(name, state[name])
    deep.load_state_dict(state)
    return deep


def _source(name: str) -> str | None:
    """The parameter of the shallow network that a parameter of the deep one begins as; None for new layers."""
    part = _PART.fullmatch(name)
    if part is None:
        return name
    number = int(part["number"])
    if number == 1:
        return None
    last = 1 if part["block"].startswith("up") and number == 2 else number
    return f"{part['block']}.{part['kind']}.{last}.{part['rest']}"


def _nothing(name: str, fresh: Tensor) -> Tensor:
    """A parameter of a layer that adds nothing: as it was drawn, but for what makes it hand on its input."""
    if name.endswith(("conv2.weight", "conv2.bias", "proj_out.weight", "proj_out.bias", "conv_shortcut.bias")):
        return torch.zeros_like(fresh)
    if name.endswith("conv_shortcut.weight"):
        through = torch.zeros_like(fresh)
        width = fresh.shape[0]  # what comes from below lies before what is handed across
        through[range(width), range(width)] = 1.0
        return through
    return fresh


def deepen(averages: Path, unet: UNet2DConditionModel, encoder: CLIPTextModel) -> bool:
    """Put averages of two layers a block in the place of those of one, with their steps and hours.

    Args:
        averages: the file; other averages, or none, stay as they are.
        unet, encoder: of one layer a block, of any weights.
    Returns:
        whether they were of one layer.
    """
    parameters = [*unet.parameters(), *encoder.parameters()]
    if not averages.exists():
        return False
    with safe_open(averages, "pt") as file:
        said = file.metadata()
        if len(file.keys()) != len(parameters):
            return False
        with torch.no_grad():
            for number, parameter in enumerate(parameters):
                parameter.copy_(file.get_tensor(str(number)))
    tensors = [*deepened(unet).parameters(), *encoder.parameters()]
    partial = averages.with_suffix(".partial")
    save_file({str(n): t.detach().half() for n, t in enumerate(tensors)}, partial, said)
    os.replace(partial, averages)
    return True

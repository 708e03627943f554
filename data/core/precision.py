"""Number types of models: which one a device gets where none was named, and TF32 for what stays in float32."""

from __future__ import annotations

DTYPES = ("float32", "float16", "bfloat16")
HALVED = ("cuda",)
"""Devices whose models are kept in float16 where nothing else was said."""


def dtype_on(device: str, dtype: str = "") -> str:
    """The number type of a model's weights on a torch device: the one that was named, else float16 on CUDA devices.

    Of the two halves float16 has eight times as fine steps as bfloat16, and a smaller range; a model that leaves it
    gives values that are not finite, which is refused by name, never rounded away.
    """
    return dtype or ("float16" if device.partition(":")[0] in HALVED else "float32")


def use_tensor_cores() -> None:
    """Let float32 products on CUDA devices round their factors to TF32 (ten bits), as convolutions do by default.

    What is kept in float32 (SAM's mask decoder, detectors of other libraries) runs several times as fast; CPUs are left
    as they are.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True

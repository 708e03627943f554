"""Which adapter a pipeline or network is seen through: by its class, never by trying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.adapter import Adapter, network_of
from gazetteer.diffusion.denoisers.flux2 import Flux2Adapter, KleinAdapter
from gazetteer.diffusion.denoisers.joint import ChromaAdapter, FluxAdapter, QwenImageAdapter, SD3Adapter
from gazetteer.diffusion.denoisers.single import (
    HunyuanAdapter,
    Lumina2Adapter,
    PixArtAdapter,
    SanaAdapter,
    ZImageAdapter,
)
from gazetteer.diffusion.denoisers.unet import UNetAdapter

UNET = UNetAdapter()
TRANSFORMERS: tuple[Adapter, ...] = (
    SD3Adapter(), FluxAdapter(), Flux2Adapter(), KleinAdapter(), ChromaAdapter(), QwenImageAdapter(), PixArtAdapter(),
    SanaAdapter(), Lumina2Adapter(), ZImageAdapter(), HunyuanAdapter(),
)  # fmt: skip
_BY_CLASS = {name: adapter for adapter in TRANSFORMERS for name in (*adapter.pipelines, *adapter.networks)}


def adapter_of(model: Any) -> Adapter:
    """The adapter of a pipeline, of its denoiser, or of torch.compile's wrapper of that.

    Raises:
        InputError: no adapter knows the class.
    """
    inner = getattr(model, "_orig_mod", model)
    adapter = next((_BY_CLASS[kind.__name__] for kind in type(inner).__mro__ if kind.__name__ in _BY_CLASS), None)
    if adapter is not None:
        return adapter
    if hasattr(inner, "transformer") and not hasattr(inner, "unet"):
        raise unsupported(type(inner).__name__)
    return UNET


def adapter_of_index(index: Mapping[str, Any], source: str) -> Adapter:
    """The adapter of a pipeline by its ``model_index.json``; raises InputError where none knows the class."""
    name = str(index.get("_class_name"))
    if name in _BY_CLASS:
        return _BY_CLASS[name]
    if "unet" in index:
        return UNET
    if "transformer" in index:
        raise unsupported(name)
    raise InputError(f"{source} is a {name}, which has neither a U-Net nor a transformer to look into.")


def require_unet(model: Any, doing: str) -> None:
    """Raise InputError for a pipeline of a transformer, where what is done knows U-Nets alone."""
    if adapter_of(model) is not UNET:
        raise InputError(f"{doing} knows pipelines with a U-Net alone, not a {type(model).__name__}.")


def require_pipeline(model: Any) -> None:
    """Raise InputError for a network, or anything else that has no sampler, where a pipeline is needed."""
    if not hasattr(model, "scheduler"):
        raise InputError(f"A pipeline is needed, which has a sampler too, not {type(model).__name__}.")


def require_attributed(model: Any) -> None:
    """Raise InputError for a pipeline whose weights cannot be scored."""
    if not adapter_of(model).attributed:
        known = (pipeline for adapter in TRANSFORMERS if adapter.attributed for pipeline in adapter.pipelines)
        raise InputError(
            f"gazetteer attribute knows pipelines with a U-Net, {' and '.join(sorted(known))}, not a "
            f"{type(model).__name__}."
        )


def unsupported(name: str) -> InputError:
    """What is said of a pipeline that no adapter knows."""
    known = sorted(pipeline for adapter in TRANSFORMERS for pipeline in adapter.pipelines)
    return InputError(f"A {name} cannot be listened to; accepted: pipelines with a U-Net, and {', '.join(known)}.")


def network(model: Any) -> nn.Module:
    """The denoiser whose modules run, of a pipeline or inside the wrapper of torch.compile."""
    return network_of(model, adapter_of(model))


def device_of(pipe: Any) -> torch.device:
    """Where a pipeline's networks work, wherever offloading keeps their weights meanwhile."""
    device: torch.device | None = getattr(pipe, "_execution_device", None)
    return device or next(network(pipe).parameters()).device

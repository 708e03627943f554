"""torch.compile and channels_last for the denoiser, so that it is heard and steered all the same.

Compiled code knows no hook that comes later. So blocks are compiled one by one, each its ``forward`` alone: hooks stand
outside of it, on the block, and see what goes in and comes out. What the compiler cannot do is said once, and the model
goes on as it is written.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gazetteer.data.core.errors import first_line
from gazetteer.diffusion.denoisers.registry import adapter_of, network
from gazetteer.diffusion.runtime.memory import is_out_of_memory

log = logging.getLogger(__name__)

RESIDUAL = ("ResnetBlock2D",)
"""Blocks of convolutions, the other half of a U-Net's work, which nobody listens to as a rule."""

VARIANTS = 8
"""How often a block may be compiled, for other sizes of batches and pictures."""

_regions: WeakKeyDictionary[nn.Module, frozenset[str]] = WeakKeyDictionary()


def compile_blocks(pipe: Any, backend: str) -> None:
    """Compile the blocks of a pipeline's denoiser with a backend of torch.compile, each when it first runs.

    What fails then, for want of a compiler or of the backend, is computed as it is written, from there on everywhere.
    """
    from torch import _dynamo  # a second to load

    denoiser, said = network(pipe), list[str]()
    kinds = {path for path, module in denoiser.named_modules() if type(module).__name__ in RESIDUAL}
    regions = _outermost({*adapter_of(pipe).blocks(denoiser), *kinds})
    # Blocks of a class share their code, and a function that is compiled anew too often would run as written, unsaid.
    limits: Any = _dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, VARIANTS * len(regions))
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, VARIANTS * len(regions))
    for path in regions:
        block: Any = denoiser.get_submodule(path)
        block.forward = _compiled(block.forward, path, backend, said)
    _regions[denoiser] = frozenset(regions)


def heard_beside(denoiser: nn.Module, paths: Iterable[str]) -> bool:
    """Whether all that is compiled in a denoiser are blocks of `compile_blocks`, and none of the paths lies inside one.

    Hooks on these paths then see everything; in any other case, and where nothing is known, compiled code may pass them
    by.
    """
    regions = _regions.get(denoiser)
    if regions is None:
        return False
    others = any(module._compiled_call_impl is not None for module in denoiser.modules())
    return not others and not any(path.startswith(f"{region}.") for path in paths for region in regions)


def use_channels_last(pipe: Any) -> None:
    """Keep the weights of convolutions, in the denoiser and the VAE, channels last, as tensor cores read them.

    Where a network cannot be laid out so, that is said and it stays as it is.
    """
    for part in (network(pipe), getattr(pipe, "vae", None)):
        if isinstance(part, nn.Module):
            try:
                part.to(memory_format=torch.channels_last)
            except (RuntimeError, TypeError) as error:
                log.warning("model.channels_last leaves %s as it is: %s", type(part).__name__, first_line(error))


def _outermost(paths: set[str]) -> list[str]:
    return sorted(path for path in paths if not any(path.startswith(f"{other}.") for other in paths))


def _compiled(usual: Callable[..., Any], path: str, backend: str, said: list[str]) -> Callable[..., Any]:
    """`usual` compiled, or as it is once something in `said` is why it cannot be."""
    made: Callable[..., Any] = torch.compile(usual, backend=backend)

    @functools.wraps(usual)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if said:
            return usual(*args, **kwargs)
        try:
            return made(*args, **kwargs)
        except Exception as error:  # whatever a compiler may throw
            if is_out_of_memory(error):
                raise
            result = usual(*args, **kwargs)  # an error of the block's own comes up here again
            said.append(first_line(error))
            log.warning("model.compile=%s failed on %s and the model goes on uncompiled: %s", backend, path, said[0])
            return result

    return forward

"""Capture the update of U-Net blocks: output minus input of the whole transformer block (P1 section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError

OnUpdate = Callable[[str, int, Tensor], None]


def find_block(unet: nn.Module, path: str) -> nn.Module:
    """The module at a diffusers path such as ``mid_block.attentions.0``, an attention block as a rule.

    Raises:
        InputError: no such module, or one that does not map [batch, channels, height, width] to the same channels, so
            that it writes no update; the sentence lists the attention blocks there are.
    """
    known = f"its attention blocks: {', '.join(attention_blocks(unet)) or 'none'}."
    try:
        module = unet.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"The U-Net has no block {path!r}; {known}") from error
    width = getattr(module, "in_channels", None)
    if module is unet or not isinstance(width, int) or getattr(module, "out_channels", None) not in (None, width):
        raise InputError(f"The module {path!r} does not add an update to its input; {known}")
    return module


def width_of(unet: nn.Module, path: str) -> int:
    """Channels of the update that the block at `path` writes; raises InputError for an unknown block."""
    return int(find_block(unet, path).in_channels)  # type: ignore[arg-type]


def attention_blocks(unet: nn.Module) -> list[str]:
    """Paths of all cross-attention transformer blocks, in module order."""
    return [name for name, module in unet.named_modules() if type(module).__name__ == "Transformer2DModel"]


def states_around(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Tensor, Tensor]:
    """The hidden states [batch, channels, height, width] before and after a block, from what a hook is given.

    Raises:
        InputError: they differ in shape, so that the block adds no update.
    """
    before = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    after = output if isinstance(output, Tensor) else output[0]
    if before.shape != after.shape:
        raise InputError(
            f"A block that is listened to makes {list(after.shape)} of {list(before.shape)}; it needs to add an update "
            "to its input, as attention blocks do."
        )
    return before, after


def with_states(output: Any, states: Tensor) -> Any:
    """A block's output with other hidden states in it: a tensor, a tuple or an output class of diffusers."""
    if isinstance(output, Tensor):
        return states
    return (states, *output[1:]) if isinstance(output, tuple) else type(output)(states)


@contextmanager
def capture_updates(
    unet: nn.Module, blocks: Sequence[str], on_update: OnUpdate, timesteps: frozenset[int] | None = None
) -> Iterator[None]:
    """While open, call ``on_update(block, timestep, update)`` for each block of each U-Net call.

    `update` is [batch, channels, height, width], detached, in the model's dtype and on its device; with
    classifier-free guidance the batch holds the unconditional half first. `timestep` is the value the
    U-Net itself received, so samplers that skip, repeat or reorder steps are followed rightly.
    The hooks are gone when the context ends, however it ends.

    Args:
        timesteps: capture only at these; None captures at all.

    Raises:
        InputError: an unknown block path.
    """
    modules = {path: find_block(unet, path) for path in blocks}
    now: list[int] = []

    def remember_timestep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = kwargs["timestep"] if "timestep" in kwargs else args[1]
        first = value.flatten()[0] if isinstance(value, Tensor) else value
        now[:] = [int(first)]

    def hook_for(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if timesteps is None or now[0] in timesteps:
                before, after = states_around(args, kwargs, output)
                on_update(path, now[0], (after - before).detach())

        return hook

    with ExitStack() as hooks:
        hooks.callback(unet.register_forward_pre_hook(remember_timestep, with_kwargs=True).remove)
        for path, module in modules.items():
            hooks.callback(module.register_forward_hook(hook_for(path), with_kwargs=True).remove)
        yield


def position_of(timestep: float, schedule: Sequence[float] | Tensor) -> float:
    """t of a timestep: 1.0 for the first of the schedule, 0.0 for the last; repeated timesteps count once.

    Raises:
        InputError: the schedule has no such timestep.
    """
    steps = sorted({float(value) for value in schedule}, reverse=True)
    nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - timestep), default=0)
    if not steps or abs(steps[nearest] - timestep) > 0.5:
        raise InputError(f"The U-Net was called at timestep {timestep:g}, which is not in the sampler's schedule.")
    return 1.0 - nearest / (len(steps) - 1) if len(steps) > 1 else 1.0


def split_branches(update: Tensor, images: int) -> dict[str, Tensor]:
    """The guidance halves of a captured update [batch, ...]: uncond first, then cond, as diffusers stacks them.

    Without guidance the batch equals `images` and all of it is ``cond``.

    Raises:
        ValueError: the batch is neither `images` nor twice that.
    """
    if update.shape[0] == images:
        return {"cond": update}
    if update.shape[0] == 2 * images:
        return {"uncond": update[:images], "cond": update[images:]}
    raise ValueError(f"A U-Net batch of {update.shape[0]} is neither {images} images nor their guidance pairs.")


def cells(update: Tensor) -> Tensor:
    """[batch, channels, height, width] -> float32 [batch, height*width, channels], row-major cells."""
    return update.flatten(2).transpose(1, 2).to(torch.float32).contiguous()

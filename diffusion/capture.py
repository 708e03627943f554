"""Capture or replace the update of U-Net blocks: output minus input of the whole transformer block (P1 section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.schedule import Schedule
from gazetteer.diffusion.watch import Call, Hook, hooked, network, watched

OnUpdate = Callable[[str, Call, Tensor], None]


def find_block(unet: nn.Module, path: str) -> nn.Module:
    """The module at a diffusers path such as ``mid_block.attentions.0``, an attention block as a rule.

    Raises:
        InputError: no such module, or one that does not map [batch, channels, height, width] to the same channels, so
            that it writes no update; the sentence lists the attention blocks there are.
    """
    unet = network(unet)
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
    return [name for name, module in network(unet).named_modules() if type(module).__name__ == "Transformer2DModel"]


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


def update_hook(on_update: Callable[[Tensor], None]) -> Hook:
    """A hook of a block that hands on its update [batch, channels, height, width], detached."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before, after = states_around(args, kwargs, output)
        on_update((after - before).detach())

    return hook


@contextmanager
def updates(unet: nn.Module, blocks: Sequence[str], on_update: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While open, call ``on_update(block, update)`` for each block of each call of a U-Net outside of a pipeline.

    Updates are as in `capture_updates`; raises InputError for an unknown block path.
    """
    for path in blocks:
        find_block(unet, path)
    with hooked(unet, {path: update_hook(partial(on_update, path)) for path in blocks}):
        yield


@contextmanager
def capture_updates(
    pipe: Any,
    blocks: Sequence[str],
    on_update: OnUpdate,
    wanted: Callable[[Call], bool] | None = None,
    schedule: Schedule | None = None,
) -> Iterator[None]:
    """While open, call ``on_update(block, call, update)`` for each block of each U-Net call that `pipe` makes.

    `update` is [batch, channels, height, width], detached, in the model's dtype and on its device; with
    classifier-free guidance the batch holds the unconditional half first. `call` says at which step of the sampler.
    The hooks are gone when the context ends, however it ends.

    Args:
        pipe: a diffusers pipeline with a U-Net and a scheduler.
        wanted: capture only at these calls; None captures at all.
        schedule: of the whole process, when the pipeline runs only a part of it; None asks the scheduler.

    Raises:
        InputError: an unknown block path; during generation: a wanted block was not heard, or a timestep is not in
            the sampler's schedule.
    """
    for path in blocks:
        find_block(pipe.unet, path)

    def hook_for(path: str) -> Hook:
        hear = update_hook(lambda update: on_update(path, watch.now, update))

        def hook(*call: Any) -> None:
            if wanted is None or wanted(watch.now):
                hear(*call)

        return hook

    with watched(pipe, schedule) as watch, hooked(pipe.unet, {path: hook_for(path) for path in blocks}):
        yield


@contextmanager
def replaced_update(unet: nn.Module, block: str, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, the block's output is its input plus ``replace(update)``, update = output − input.

    `replace` is given and returns [batch, channels, height, width]. The hook is gone when the context ends, however
    it ends.

    Raises:
        InputError: an unknown block path, or the U-Net ran without coming by it.
    """

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before, after = states_around(args, kwargs, output)
        return with_states(output, before + replace(after - before).to(before.dtype))

    find_block(unet, block)
    with hooked(unet, {block: hook}):
        yield


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

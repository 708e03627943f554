"""Capture or replace what blocks write: updates, output minus input of the whole block (P1 section 3.2), or outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port
from gazetteer.diffusion.denoisers.adapter import STACKED
from gazetteer.diffusion.denoisers.registry import adapter_of, network
from gazetteer.diffusion.schedule import Schedule
from gazetteer.diffusion.watch import Call, Hook, Passing, hooked, watched

OnUpdate = Callable[[str, Call, Tensor], None]
OnSignal = Callable[[Port, Call, Tensor], None]


def find_block(model: Any, path: str) -> nn.Module:
    """The module at a diffusers path such as ``mid_block.attentions.0`` or ``transformer_blocks.1``.

    Raises:
        InputError: no such module, or one that adds no update to its input; the sentence lists the blocks there are.
    """
    adapter_of(model).find(network(model), path)
    return network(model).get_submodule(path)


def width_of(model: Any, path: str) -> int:
    """Channels of the update that the block at `path` writes; raises InputError for an unknown block."""
    return adapter_of(model).find(network(model), path).channels


def attention_blocks(model: Any) -> list[str]:
    """Paths of all blocks that are offered, in module order."""
    return list(adapter_of(model).blocks(network(model)))


@contextmanager
def updates(model: Any, blocks: Sequence[str], on_update: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While open, call ``on_update(block, update)`` for each block of each call of a denoiser outside of a pipeline.

    Updates are as in `capture_updates`; raises InputError for an unknown block path.
    """

    def hook_for(path: str) -> Hook:
        return lambda passing: on_update(path, passing.signal(Port(path)).detach())

    for path in blocks:
        find_block(model, path)
    with hooked(model, {path: hook_for(path) for path in blocks}):
        yield


@contextmanager
def capture(
    pipe: Any,
    ports: Sequence[Port],
    on_signal: OnSignal,
    wanted: Callable[[Call], bool] | None = None,
    schedule: Schedule | None = None,
    on_step: Callable[[Tensor | None], None] | None = None,
) -> Iterator[None]:
    """While open, call ``on_signal(port, call, values)`` for each port of each denoiser call that `pipe` makes.

    `values` is [batch, channels, height, width], detached, in the model's dtype and on its device; of the stream
    ``text`` [batch, channels, 1, words]. `call` says at which step of the sampler, and which branches of guidance the
    batch holds (`split_branches`). The hooks are gone when the context ends, however it ends.

    Args:
        pipe: a diffusers pipeline with a U-Net or a known transformer, and a scheduler.
        wanted: capture only at these calls; None captures at all.
        schedule: of the whole process, when the pipeline runs only a part of it; None asks the scheduler.
        on_step: called when the sampler takes a step, with the latents before it (`gazetteer.diffusion.watch.watched`).

    Raises:
        InputError: an unknown block path or stream; during generation: a wanted block was not heard, or a timestep is
            not in the sampler's schedule.
    """
    adapter = adapter_of(pipe)
    for port in ports:
        adapter.check(network(pipe), port)

    def hook_for(own: Sequence[Port]) -> Hook:
        def hook(passing: Passing) -> None:
            if wanted is None or wanted(watch.now):
                for port in own:
                    on_signal(port, watch.now, passing.signal(port).detach())

        return hook

    by_block = {
        block: [port for port in ports if port.block == block] for block in dict.fromkeys(p.block for p in ports)
    }
    with (
        watched(pipe, schedule, on_step) as watch,
        hooked(pipe, {block: hook_for(own) for block, own in by_block.items()}),
    ):
        yield


@contextmanager
def capture_updates(
    pipe: Any,
    blocks: Sequence[str],
    on_update: OnUpdate,
    wanted: Callable[[Call], bool] | None = None,
    schedule: Schedule | None = None,
) -> Iterator[None]:
    """`capture` of the image stream's updates: ``on_update(block, call, update)``."""

    def on_signal(port: Port, call: Call, values: Tensor) -> None:
        on_update(port.block, call, values)

    with capture(pipe, [Port(block) for block in blocks], on_signal, wanted, schedule):
        yield


@contextmanager
def replaced_update(
    model: Any, block: str, replace: Callable[[Tensor], Tensor], signal: str = "update"
) -> Iterator[None]:
    """While open, the block's output is its input plus ``replace(update)``, update = output − input.

    `replace` is given and returns [batch, channels, height, width]; with the signal ``output`` it is given the output
    and what it returns takes its place. The hook is gone when the context ends, however it ends.

    Raises:
        InputError: an unknown block path, or the denoiser ran without coming by it.
    """

    def hook(passing: Passing) -> Any:
        before, after = passing.states()
        if signal == "output":
            return passing.replaced(replace(after).to(before.dtype))
        return passing.replaced(before + replace(after - before).to(before.dtype))

    find_block(model, block)
    with hooked(model, {block: hook}):
        yield


def split_branches(
    values: Tensor, images: int, branches: Sequence[str] = STACKED, guided: bool | None = None
) -> dict[str, Tensor]:
    """The branches of captured values [batch, ...] of so many pictures, as their call holds them.

    Args:
        branches: that the call holds (`gazetteer.diffusion.watch.Call`), two stacked, or one; where two could be and
            the batch holds one of each picture, it is ``cond``.
        guided: whether the generation stacks both; None where only the batch tells.

    Raises:
        InputError: the batch holds two of each picture without guidance.
        ValueError: the batch is neither `images` nor twice that.
    """
    if values.shape[0] == images:
        return {branches[0] if len(branches) == 1 else "cond": values}
    if values.shape[0] == len(branches) * images:
        if guided is False:
            raise InputError(
                f"The denoiser is given {values.shape[0]} inputs for {images} pictures without guidance; what is there "
                "beside the prompts (perturbed attention or the like) is no branch, and cannot be listened to."
            )
        return dict(zip(branches, values.split(images), strict=True))
    raise ValueError(f"A denoiser batch of {values.shape[0]} is neither {images} images nor their guidance pairs.")


def check_inputs(pipe: Any, noted: Sequence[tuple[int, int]], latents: Tensor | None, who: str) -> None:
    """Refuse a pipeline that gives its denoiser other inputs than one of each picture, or with guidance two.

    InstructPix2Pix, perturbed attention and others stack more. A hook sees the batch alone; how many pictures are
    drawn, the sampler's step is told.

    Args:
        noted: of each call that was heard: inputs in its batch, inputs there should be of one picture.
        latents: that the sampler's step is given; None where that is not known.
        who: cannot do with them, for the sentence.
    """
    for inputs, parts in noted:
        if latents is not None and inputs != parts * len(latents):
            raise InputError(
                f"{type(pipe).__name__} gives the {adapter_of(pipe).kind} {inputs} inputs for {len(latents)} pictures; "
                f"{who} know pipelines that give "
                f"{'an unconditional and a conditional one' if parts == 2 else 'one'} of each."
            )


def cells(update: Tensor) -> Tensor:
    """[batch, channels, height, width] -> float32 [batch, height*width, channels], row-major cells."""
    return update.flatten(2).transpose(1, 2).to(torch.float32).contiguous()

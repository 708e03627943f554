"""Train on several cores: one process and one thread each, gradients averaged after every step.

Two processes of one thread do more steps per minute than one process of two threads: at this size the threads of a
convolution spend much of their time waiting for each other.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn


def run(work: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Call `work(*arguments)` in `workers` processes that can average; in this one if it is one."""
    if workers == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder, "meeting"))
        mp.spawn(_join, (work, workers, meeting, arguments), nprocs=workers)  # type: ignore[no-untyped-call]


def _join(rank: int, work: Callable[..., None], workers: int, meeting: str, arguments: Sequence[Any]) -> None:
    # mp.spawn sends SIGINT when its parent dies; a job started in the background inherits it ignored, and would go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    try:
        work(*arguments)
        dist.barrier()  # whoever left first would cut off those that still read from it, which aborts them
    finally:
        dist.destroy_process_group()
    # Threads of gloo that end while the interpreter does abort the process, now and then, after all is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def rank() -> int:
    """Number of this process, 0 for the one that saves and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def workers() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients by their means over the processes."""
    if workers() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= workers()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def divided(
    work: Callable[[Tensor], Tensor], inputs: Sequence[Tensor], cost: Callable[[Tensor], float]
) -> list[Tensor]:
    """`work` of every input, shared out over the processes by `cost`; every process gets all results.

    The processes must hold equal inputs, and `work` keep their shapes and types.
    """
    if workers() == 1:
        return [work(tensor) for tensor in inputs]
    load: list[float] = [0.0] * workers()
    owned: list[list[int]] = [[] for _ in load]
    for number in sorted(range(len(inputs)), key=lambda i: -cost(inputs[i])):
        owner = load.index(min(load))
        owned[owner].append(number)
        load[owner] += cost(inputs[number])
    results = [torch.empty_like(tensor) for tensor in inputs]
    for number in owned[rank()]:
        results[number] = work(inputs[number])
    for owner, numbers in enumerate(owned):
        if numbers:
            flat = torch.cat([results[number].flatten() for number in numbers])
            dist.broadcast(flat, owner)
            parts = flat.split([results[number].numel() for number in numbers])
            for number, part in zip(numbers, parts, strict=True):
                results[number] = part.view_as(inputs[number])
    return results


def shared(value: float) -> float:
    """The value of the first process: what decides the rate and the end must not differ."""
    if workers() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(tensor, 0)
    return float(tensor)

"""What the training scripts share: a budget in steps or minutes, averages, checkpoints, sheets."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError

Result = TypeVar("Result")

PAUSE = 300.0
"""Seconds that no step takes: the process was stopped meanwhile, or its machine slept."""


@dataclass
class Budget:
    """How long to train: `minutes` of wall time or a number of `steps`, whichever ends first.

    `seconds` counts the time spent by earlier runs too, so a resumed run keeps its schedule; `warm_from` is the step
    at which the optimiser was new.
    """

    minutes: float | None
    steps: int | None
    step: int = 0
    seconds: float = 0.0
    warm_from: int = 0
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.minutes is None and self.steps is None:
            raise ValueError("a budget needs minutes or steps")

    def tick(self) -> None:
        """Count one finished step; one that was stopped for longer than `PAUSE` takes as long as the others."""
        now = time.monotonic()
        spent = now - self._last
        self.seconds += spent if spent < PAUSE else self.seconds / max(1, self.step)
        self._last = now
        self.step += 1

    def restart_clock(self) -> None:
        """Leave out the time since the last tick (saving, drawing sheets, waiting for data)."""
        self._last = time.monotonic()

    @property
    def fraction(self) -> float:
        """Share of the budget that is used up, in [0, 1]."""
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        by_step = self.step / self.steps if self.steps else 0.0
        return min(1.0, max(by_time, by_step))


def cosine_rate(peak: float, budget: Budget, warmup: int, floor: float = 0.02) -> float:
    """Learning rate: linear warm-up, then a cosine over the budget down to `floor` x peak."""
    ramp = min(1.0, (budget.step - budget.warm_from + 1) / warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * budget.fraction))
    return peak * ramp * (floor + (1 - floor) * cosine)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Step, unless the norm of the gradients is not a finite number: one bad batch must not end hours of training."""
    if math.isfinite(float(norm)):
        optimizer.step()


def spread(count: int) -> Tensor:
    """`count` uniform numbers in [0, 1), one in each of as many equal parts, in any order.

    Steps drawn so make the loss of a batch vary less than independent ones: the low-discrepancy sampler of Kingma et
    al. 2021, "Variational diffusion models".
    """
    return ((torch.randperm(count) + torch.rand(count)) / count).clamp(max=1 - 2**-24)


class Average:
    """An exponential moving average of the parameters of several modules."""

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        self.decay = decay
        self._live = [parameter for module in modules for parameter in module.parameters()]
        self.shadow = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the live parameters; faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self._live], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and live parameters; call again to undo."""
        for averaged, live in zip(self.shadow, self._live, strict=True):
            copy = live.detach().clone()
            live.copy_(averaged)
            averaged.copy_(copy)

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Restore the averages of a checkpoint."""
        for averaged, saved in zip(self.shadow, tensors, strict=True):
            averaged.copy_(saved)

    @torch.no_grad()
    def begin(self, tensors: Sequence[Tensor]) -> None:
        """Let the live parameters and their averages be these."""
        self.load(tensors)
        for live, averaged in zip(self._live, self.shadow, strict=True):
            live.copy_(averaged)

    def state_dict(self) -> dict[str, Any]:
        """The averages, for a checkpoint."""
        return {"shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.load(state["shadow"])


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimizers, averages."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore what `state_dict` gave."""


class Threads:
    """How many threads a step gets: a fixed number, or (0) the faster of one and all, tried again now and then.

    Threads that outnumber the free cores stall each other, and on a shared machine the number of free cores changes.
    A trial of all threads that fails is repeated after twice as many steps.
    """

    TRIAL, SHORTEST, LONGEST = 3, 60, 480

    def __init__(self, threads: int) -> None:
        self.most = 1 if threads else torch.get_num_threads()
        self.best, self.wait, self._phase = threads or 1, self.SHORTEST, 0
        self._times: list[float] = []
        torch.set_num_threads(self.best)

    def timed(self, step: Callable[[], Result]) -> Result:
        """Call `step` with the number of threads that is tried, or that is best."""
        if self.most == 1:
            return step()
        if self._phase < 2 * self.TRIAL:
            torch.set_num_threads(1 if self._phase < self.TRIAL else self.most)
        start = time.monotonic()
        result = step()
        self._times.append(time.monotonic() - start)
        self._phase += 1
        if self._phase > self.TRIAL:
            self._judge()
        return result

    def _judge(self) -> None:
        single, every = self._times[: self.TRIAL], self._times[self.TRIAL : 2 * self.TRIAL]
        if self._phase <= 2 * self.TRIAL:
            slower = sum(every) / len(every) > 1.5 * sum(single) / len(single)
            if self._phase == 2 * self.TRIAL or slower:
                self.best = self.most if sum(every) / len(every) < sum(single) / len(single) else 1
                self.wait = self.SHORTEST if self.best > 1 else min(self.LONGEST, 2 * self.wait)
                self._phase = 2 * self.TRIAL + 1
                torch.set_num_threads(self.best)
        elif self._phase >= self.wait:
            self._phase = 0
            self._times.clear()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, replacing the previous checkpoint only when complete."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; refuses anything but tensors and plain values."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def require_same(path: Path, said: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on from what was trained on something else; older checkpoints say nothing (None).

    Raises:
        InputError: says what differs.
    """
    names = [name for name in wanted if said is not None and said.get(name) != wanted[name]]
    if said is not None and names:
        name = names[0]
        raise InputError(
            f"{path} was trained with {name} {said.get(name)!r}, not {wanted[name]!r}; remove it to begin anew."
        )


@dataclass
class Resumable:
    """A training loop on one stream of random numbers, that of torch, which goes on where a killed run stood.

    Attributes:
        path: the checkpoint; its folder is made.
        every: steps between checkpoints.
        others: what else changes: further optimizers, averages, modules.
        averages: written beside each checkpoint too, in float16: small enough to be kept in a repository, and a run
            whose checkpoint is gone goes on from them, with a new optimiser.
        about: plain values that must be the same where the run goes on, as the views of its scenes.
    """

    path: Path
    modules: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer
    budget: Budget
    every: int = 100
    others: Sequence[Stateful] = ()
    averages: Average | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def small(self) -> Path:
        """The file of the averages."""
        return self.path.with_name("averages.safetensors")

    def start(self, resume: bool) -> None:
        """Continue from the checkpoint where that is wanted and there is one; starts the clock.

        Raises:
            InputError: the checkpoint, or the averages, were trained on something else than `about` says.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            state = load_checkpoint(self.path)
            require_same(self.path, state.get("about"), self.about)
            for module, tensors in zip(self.modules, state["modules"], strict=True):
                module.load_state_dict(tensors)
            self.optimizer.load_state_dict(state["optimizer"])
            for other, saved in zip(self.others, state.get("others", ()), strict=True):
                other.load_state_dict(saved)
            self.budget.step, self.budget.seconds = state["step"], state["seconds"]
            self.budget.warm_from = state.get("warm_from", 0)
            torch.set_rng_state(state["random"])
        elif resume and self.averages is not None and self.small.exists():
            self._start_from_averages(self.averages)
        self.budget.restart_clock()

    def _start_from_averages(self, averages: Average) -> None:
        with safe_open(self.small, "pt") as file:
            said = file.metadata()
            require_same(self.small, json.loads(said.get("about", "null")), self.about)
            if len(file.keys()) != len(averages.shadow):
                raise ValueError(f"{self.small} holds {len(file.keys())} tensors, this network {len(averages.shadow)}")
            averages.begin([file.get_tensor(str(number)) for number in range(len(averages.shadow))])
        self.budget.step = self.budget.warm_from = int(said["step"])
        self.budget.seconds = float(said["seconds"])
        torch.manual_seed(torch.initial_seed() + self.budget.step)  # and not the numbers of the first steps once more

    def tick(self) -> None:
        """Count one finished step, and write a checkpoint after every `every` of them."""
        self.budget.tick()
        if self.budget.step % self.every == 0:
            self.save()

    def save(self) -> None:
        """Write the checkpoint; the clock leaves this out."""
        state = {
            "modules": [module.state_dict() for module in self.modules],
            "optimizer": self.optimizer.state_dict(),
            "others": [other.state_dict() for other in self.others],
            "step": self.budget.step,
            "seconds": self.budget.seconds,
            "warm_from": self.budget.warm_from,
            "random": torch.get_rng_state(),
            "about": dict(self.about),
        }
        save_checkpoint(self.path, state)
        if self.averages is not None:
            tensors = {str(number): tensor.half().cpu() for number, tensor in enumerate(self.averages.shadow)}
            said = {"step": str(self.budget.step), "seconds": str(self.budget.seconds)}
            said["about"] = json.dumps(dict(self.about))
            save_file(tensors, partial := self.small.with_suffix(".partial"), said)
            os.replace(partial, self.small)
        self.budget.restart_clock()


def save_sheet(pictures: np.ndarray, path: Path, columns: int = 6) -> None:
    """Tile uint8 pictures [N, H, W, 3] into one PNG."""
    count, height, width, _ = pictures.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 2), columns * (width + 2), 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    Image.fromarray(sheet).save(path)


def to_pictures(pixels: Tensor) -> np.ndarray:
    """Tensor [N, 3, H, W] in [-1, 1] to uint8 [N, H, W, 3]."""
    eight_bit = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return eight_bit.permute(0, 2, 3, 1).numpy()

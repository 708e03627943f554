"""Know at every denoiser call which sampler step it belongs to, and raise when what should be heard was not.

The one place that reads the denoiser's timestep. Hooks are passed by where a network was compiled, traced or cached;
so networks run uncompiled while they are listened to, and what was heard is counted.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.schedule import Schedule

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
"""A forward hook: (module, args, kwargs, output) -> another output, or None."""


@dataclass(frozen=True)
class Call:
    """One call of the denoiser.

    Attributes:
        place: 0-based among the calls of the whole process.
        step: 0-based sampler step.
        first: whether it is the first call of its step (a step of Heun's has two).
        timestep: as the denoiser is told.
        t: position in the reverse process, 1.0 in the first step, 0.0 in the last.
    """

    place: int
    step: int
    first: bool
    timestep: float
    t: float


@dataclass
class Watch:
    """Where a running pipeline is.

    Attributes:
        call: the present, or last, call of the denoiser; None before the first of a generation.
        calls: how many there were since the sampler's last step.
    """

    pipe: Any
    schedule: Schedule | None = None
    call: Call | None = None
    calls: int = 0
    _own: Schedule | None = None
    _stepped: bool = False

    @property
    def now(self) -> Call:
        """The present call; RuntimeError where a block runs outside of the denoiser."""
        if self.call is None:
            raise RuntimeError("a block was called outside of the denoiser")
        return self.call

    def begin(self) -> None:
        """A generation begins: the scheduler's timesteps have been set."""
        self._own, self.call, self.calls, self._stepped = None, None, 0, False

    def called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The denoiser is called; raises InputError for a timestep that is not in the schedule."""
        value = kwargs["timestep"] if "timestep" in kwargs else args[1]
        timestep = float(value.flatten()[0] if isinstance(value, Tensor) else value)
        if self._own is None:
            self._own = self.schedule or Schedule.of(self.pipe.scheduler)
        schedule = self._own
        place = self._place(schedule, timestep)
        step = schedule.steps[place]
        first = place == 0 or schedule.steps[place - 1] != step
        self.call = Call(place, step, first, timestep, schedule.t(place))
        self.calls += 1
        self._stepped = False
        return self.call

    def check(self) -> None:
        """The sampler takes a step; raises InputError when no call of the denoiser came before it."""
        if not self.calls:
            raise InputError(
                f"{type(self.pipe).__name__} took a sampler step, but its U-Net was not heard: something runs in its "
                "place (a traced or exported network, a cache), which can be neither listened to nor steered."
            )
        self.calls, self._stepped = 0, True

    def _place(self, schedule: Schedule, timestep: float) -> int:
        """The place of a call: the next one if its timestep says so, else the next one of that timestep."""
        begin = getattr(self.pipe.scheduler, "begin_index", None) or 0
        expected = begin if self.call is None else self.call.place + self._stepped
        slack = 1e-6 * max(1.0, abs(timestep))
        places = [place for place, value in enumerate(schedule.timesteps) if abs(value - timestep) <= slack]
        if not places:
            raise InputError(f"The U-Net was called at timestep {timestep:g}, which is not in the sampler's schedule.")
        if expected in places:
            return expected
        return next((place for place in places if place > expected), places[0])


def network(pipe: Any) -> nn.Module:
    """The denoiser whose modules run, of a pipeline or inside the wrapper of torch.compile."""
    unet = getattr(pipe, "unet", pipe)
    found: nn.Module = getattr(unet, "_orig_mod", unet)
    return found


@contextmanager
def watched(
    pipe: Any,
    schedule: Schedule | None = None,
    on_step: Callable[[Tensor | None], None] | None = None,
    on_call: Callable[[Call, tuple[Any, ...], dict[str, Any]], None] | None = None,
) -> Iterator[Watch]:
    """While open, the watch knows where the generations of `pipe` are; hooks and patches go however it ends.

    Args:
        schedule: of the whole process, when the pipeline runs only a part of it; None asks the scheduler.
        on_step: called when the sampler takes a step, with the latents before it.
        on_call: called before the denoiser runs, with its (args, kwargs).

    Raises:
        InputError: during generation, as `Watch`.
    """
    watch = Watch(pipe, schedule)

    def begin(usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = usual(*args, **kwargs)
        watch.begin()
        return result

    def step(usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        watch.check()
        if on_step is not None:
            sample = kwargs["sample"] if "sample" in kwargs else args[2] if len(args) > 2 else None
            on_step(sample if isinstance(sample, Tensor) else None)
        return usual(*args, **kwargs)

    def called(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = watch.called(args, kwargs)
        if on_call is not None:
            on_call(call, args, kwargs)

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        stack.callback(network(pipe).register_forward_pre_hook(called, with_kwargs=True).remove)
        stack.enter_context(patched(pipe.scheduler, "set_timesteps", begin))
        stack.enter_context(patched(pipe.scheduler, "step", step))
        yield watch


@contextmanager
def hooked(unet: nn.Module, hooks: Mapping[str, Hook], before: bool = False) -> Iterator[None]:
    """While open, the hooks are on the modules of these paths, and every call of the U-Net must come by all of them.

    Args:
        unet: a U-Net, or torch.compile's wrapper of one; it runs uncompiled meanwhile.
        hooks: by path; forward hooks, or with `before` forward pre-hooks (output is then None).

    Raises:
        InputError: after a call of the U-Net that passed a hook by.
    """
    unet = network(unet)
    missing: set[str] = set()

    def counted(path: str, hook: Hook) -> Callable[..., Any]:
        def run(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> Any:
            missing.discard(path)
            return hook(module, args, kwargs, output)

        return run

    def begin(*_: Any) -> None:
        missing.clear()
        missing.update(hooks)

    def check(*_: Any) -> None:
        if missing:
            raise InputError(
                f"The U-Net was called, but {', '.join(sorted(missing))} was not heard: a compiled part, or a "
                "cache that skips blocks, can be neither listened to nor steered; load the model without it."
            )

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        stack.callback(unet.register_forward_pre_hook(begin).remove)
        for path, hook in hooks.items():
            module = unet.get_submodule(path)
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(counted(path, hook), with_kwargs=True).remove)
        stack.callback(unet.register_forward_hook(check).remove)
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """While open, networks run as written where torch.compile was asked for: compiled code knows no new hooks."""
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and the import takes a second
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def patched(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """While open, ``owner.name(...)`` is ``around(usual, ...)``; what stood there before comes back.

    Patches of one method may be nested; pipelines see the signature of the usual one.
    """
    usual, own = getattr(owner, name), name in vars(owner)

    @functools.wraps(usual)
    def method(*args: Any, **kwargs: Any) -> Any:
        return around(usual, *args, **kwargs)

    setattr(owner, name, method)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, usual)
        else:
            delattr(owner, name)

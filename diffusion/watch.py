"""Know at every denoiser call which sampler step it belongs to, and raise when what should be heard was not.

The one place that reads the denoiser's timestep. Hooks are passed by where a network was compiled, traced or cached;
so networks run uncompiled while they are listened to (but for blocks that `gazetteer.diffusion.runtime.compiling` made
to be heard), and what was heard is counted.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port
from gazetteer.diffusion.denoisers.adapter import STACKED, Adapter, BlockCall, TokenGrid
from gazetteer.diffusion.denoisers.registry import adapter_of, network, require_pipeline
from gazetteer.diffusion.runtime.compiling import heard_beside
from gazetteer.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Passing:
    """A block at work, as the hooks on it see it."""

    adapter: Adapter
    call: BlockCall

    def states(self, stream: str = "image") -> tuple[Tensor, Tensor]:
        """A stream before and after the block (`gazetteer.diffusion.denoisers.adapter.Adapter.states`)."""
        return self.adapter.states(self.call, stream)

    def signal(self, port: Port) -> Tensor:
        """What is heard at a port [batch, channels, height, width]."""
        before, after = self.states(port.stream)
        if port.signal == "update":
            return after - before
        return after if port.signal == "output" else before

    def replaced(self, after: Tensor, stream: str = "image", output: Any = None) -> Any:
        """The output, or another one of its kind, with another state of a stream in it."""
        call = self.call if output is None else replace(self.call, output=output)
        return self.adapter.replaced(call, stream, after)


Hook = Callable[[Passing], Any]
"""Called when a block has run; returns another output, or None."""


@dataclass(frozen=True)
class Call:
    """One call of the denoiser.

    Attributes:
        place: 0-based among the calls of the whole process.
        step: 0-based sampler step.
        first: whether it is the first call of its step (a step of Heun's has two).
        timestep: the sampler's own; what the denoiser is told may be another scale of it.
        t: position in the reverse process, 1.0 in the first step, 0.0 in the last.
        branches: of guidance that its batch holds if it holds all it can, in their order.
    """

    place: int
    step: int
    first: bool
    timestep: float
    t: float
    branches: tuple[str, ...] = STACKED


@dataclass
class Watch:
    """Where a running pipeline is.

    Attributes:
        call: the present, or last, call of the denoiser; None before the first of a generation.
        calls: how many there were since the sampler's last step.
        context: for which branch, as the pipeline tells the network's cache; None where it does not.
    """

    pipe: Any
    schedule: Schedule | None = None
    call: Call | None = None
    calls: int = 0
    context: str | None = None
    _own: Schedule | None = None
    _at: int = 0
    _stepped: bool = False
    _begun: bool = False

    @property
    def now(self) -> Call:
        """The present call; RuntimeError where a block runs outside of the denoiser."""
        if self.call is None:
            raise RuntimeError("a block was called outside of the denoiser")
        return self.call

    def begin(self) -> None:
        """A generation begins: the scheduler's timesteps have been set."""
        self._own, self.call, self.calls, self._stepped, self._begun = None, None, 0, False, True

    def called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The denoiser is called; raises InputError for a timestep that is not in the schedule."""
        told = self.adapter.told(network(self.pipe), args, kwargs)
        if self._own is None:
            self._own = self.schedule if self.schedule and not self._begun else Schedule.of(self.pipe.scheduler)
        self._at, schedule = self._heard(told, self._own), self.schedule or self._own
        place = self._at if schedule is self._own else self._within(schedule, self._own.timesteps[self._at])
        step = schedule.steps[place]
        first = place == 0 or schedule.steps[place - 1] != step
        branches = self.adapter.order(self.context, self.calls)
        self.call = Call(place, step, first, schedule.timesteps[place], schedule.t(place), branches)
        self.calls += 1
        self._stepped = False
        return self.call

    def check(self) -> None:
        """The sampler takes a step; raises InputError when no call of the denoiser came before it."""
        if not self.calls:
            raise InputError(
                f"{type(self.pipe).__name__} took a sampler step, but its {self.adapter.kind} was not heard: "
                "something runs in its place (a traced or exported network, a cache), which can be neither listened "
                "to nor steered."
            )
        self.calls, self._stepped = 0, True

    @property
    def adapter(self) -> Adapter:
        """That of the pipeline."""
        return adapter_of(self.pipe)

    def _heard(self, value: Any, own: Schedule) -> int:
        """The place of a call in this generation: the next one if what it is told says so, else the next that does."""
        told = float(value.flatten()[0] if isinstance(value, Tensor) else value)
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        slack = (torch.finfo(value.dtype).eps if half else 1e-6) * max(1.0, abs(told))
        times = [self.adapter.time(self.pipe, timestep) for timestep in own.timesteps]
        begin = getattr(self.pipe.scheduler, "begin_index", None) or 0
        return self._next(told, times, slack, begin if self.call is None else self._at + self._stepped)

    def _within(self, whole: Schedule, timestep: float) -> int:
        """Its place in the whole process, which has more calls, some nearer than half precision tells apart."""
        expected = 0 if self.call is None else self.call.place + self._stepped
        return self._next(timestep, whole.timesteps, 1e-6 * max(1.0, abs(timestep)), expected)

    def _next(self, told: float, times: Sequence[float], slack: float, expected: int) -> int:
        places = [place for place, time in enumerate(times) if abs(time - told) <= slack]
        if not places:
            raise InputError(
                f"The {self.adapter.kind} was called at timestep {told:g}, which is not in the sampler's schedule."
            )
        return next((place for place in places if place >= expected), places[0])


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
        InputError: a network in place of a pipeline; during generation, as `Watch`.
    """
    require_pipeline(pipe)
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

    @contextmanager
    def context(usual: Callable[..., Any], name: str) -> Iterator[None]:
        watch.context = name
        try:
            with usual(name):
                yield
        finally:
            watch.context = None

    def called(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = watch.called(args, kwargs)
        if on_call is not None:
            on_call(call, args, kwargs)

    with ExitStack() as stack:
        stack.enter_context(heard_whole(pipe))
        stack.callback(network(pipe).register_forward_pre_hook(called, with_kwargs=True).remove)
        if hasattr(network(pipe), "cache_context"):
            stack.enter_context(patched(network(pipe), "cache_context", context))
        stack.enter_context(patched(pipe.scheduler, "set_timesteps", begin))
        stack.enter_context(patched(pipe.scheduler, "step", step))
        yield watch


@contextmanager
def hooked(model: Any, hooks: Mapping[str, Hook], before: bool = False) -> Iterator[None]:
    """While open, the hooks are on the modules of these paths, and every call of the denoiser must come by all of them.

    Args:
        model: a pipeline, its denoiser, or torch.compile's wrapper of one; it runs uncompiled meanwhile.
        hooks: by path; called when the module has run, or with `before` before that (output is then None).

    Raises:
        InputError: after a call of the denoiser that passed a hook by.
    """
    denoiser, adapter = network(model), adapter_of(model)
    missing: set[str] = set()
    layout = [TokenGrid()]

    def counted(path: str, hook: Hook) -> Callable[..., Any]:
        def run(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> Any:
            missing.discard(path)
            return hook(Passing(adapter, BlockCall(path, module, args, kwargs, output, layout[0])))

        return run

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layout[0] = adapter.layout(denoiser, args, kwargs)
        missing.clear()
        missing.update(hooks)

    def check(*_: Any) -> None:
        if missing:
            raise InputError(
                f"The {adapter.kind} was called, but {', '.join(sorted(missing))} was not heard: a compiled part, or a "
                "cache that skips blocks, can be neither listened to nor steered; load the model without it."
            )

    with ExitStack() as stack:
        stack.enter_context(heard_whole(model, hooks))
        stack.callback(denoiser.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for path, hook in hooks.items():
            module = denoiser.get_submodule(path)
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(counted(path, hook), with_kwargs=True).remove)
        stack.callback(denoiser.register_forward_hook(check).remove)
        yield


@contextmanager
def heard_whole(model: Any, paths: Iterable[str] = ()) -> Iterator[None]:
    """While open, a denoiser runs as written where compiled code would pass by hooks on these of its modules.

    model: a pipeline, its denoiser, or torch.compile's wrapper of one.
    """
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and the import takes a second
        yield
        return

    whole = getattr(model, adapter_of(model).part, model)
    if not hasattr(whole, "_orig_mod") and heard_beside(network(model), paths):
        yield
        return

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

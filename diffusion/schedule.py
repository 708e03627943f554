"""What a sampler will do: the denoiser calls it makes, the sampler steps they belong to, and whether it works at all.

diffusers' pipelines call the denoiser once for each entry of ``scheduler.timesteps``; a sampler of second order (Heun,
KDPM2) has two entries a step, the Runge-Kutta start of PNDM four. A site listens at the first call of its step.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.sites import step_of
from gazetteer.data.inputs.edits import Edit
from gazetteer.data.tables.codes import Moment

NEEDED = ("set_timesteps", "step", "scale_model_input", "init_noise_sigma", "timesteps", "order")
"""What Stable Diffusion's pipelines ask of a scheduler; samplers of other families lack some of it."""


def samples_flows(scheduler: str) -> bool:
    """Whether a scheduler of diffusers, by its class's name, samples models of flow matching, which give velocities."""
    return scheduler.startswith("FlowMatch")


def states_betas(kind: Any) -> bool:
    """Whether a scheduler class of diffusers says by betas what is noise at a timestep, as DDIM does.

    One that needs a library which is not installed is taken to.
    """
    return "_backends" in vars(kind) or "beta_start" in inspect.signature(kind.__init__).parameters


def takes_ddim(scheduler: Any) -> bool:
    """Whether DDIM can take a sampler's place (``model.scheduler=ddim``): one of betas, and not of flow matching."""
    flows = getattr(scheduler, "config", {}).get("prediction_type") == "flow_prediction"
    return states_betas(type(scheduler)) and not flows


def edm_form(scheduler: Any) -> bool:
    """Whether a sampler takes a network's output F to mean D = c_skip x + c_out F (Karras et al. 2022, eq. 7)."""
    return hasattr(scheduler, "precondition_outputs")


def has_step(window: Sequence[float], steps: int) -> bool:
    """Whether an edit of a window acts at all in a generation of so many sampler steps: few leave some without one."""
    edit = Edit(concept="-", window=tuple(window))
    return any(edit.active(1.0 - step / max(1, steps - 1)) for step in range(steps))


def no_step(window: Sequence[float], steps: int) -> str:
    """What is said of a window without a step."""
    low, high = window
    return f"of {steps} sampler steps none lies in the window {low:g} < t ≤ {high:g}"


@dataclass(frozen=True)
class Schedule:
    """The denoiser calls of one generation, in order.

    Attributes:
        timesteps: of every call, as the denoiser is told: not always whole numbers, nor all different.
        steps: 0-based sampler step of every call, ascending.
    """

    timesteps: tuple[float, ...]
    steps: tuple[int, ...]

    @classmethod
    def plain(cls, timesteps: Sequence[float] | Tensor) -> Schedule:
        """One call a step."""
        values = tuple(float(value) for value in timesteps)
        return cls(values, tuple(range(len(values))))

    @classmethod
    def of(cls, scheduler: Any) -> Schedule:
        """The calls that a scheduler asks for as its timesteps are set."""
        values = tuple(float(value) for value in scheduler.timesteps)
        order = int(getattr(scheduler, "order", 1) or 1)
        if hasattr(scheduler, "prk_timesteps"):
            return cls(values, _pndm_steps(len(values), 0 if scheduler.config.skip_prk_steps else 3))
        return cls(values, tuple(place // order for place in range(len(values))))

    @property
    def count(self) -> int:
        """Sampler steps."""
        return self.steps[-1] + 1 if self.steps else 0

    def t(self, place: int) -> float:
        """Position in the reverse process of a call (0-based): 1.0 in the first step, 0.0 in the last."""
        return 1.0 - self.steps[place] / (self.count - 1) if self.count > 1 else 1.0

    def first_call(self, step: int) -> int:
        """0-based place of the first call of a step."""
        return self.steps.index(step)

    def place(self, t: float) -> int:
        """0-based place of the call that a site at `t` listens to: the first of its step."""
        return self.first_call(step_of(t, self.count))

    def first_step(self, window: tuple[float, float]) -> int:
        """0-based first step in which an edit of this window acts; the last step when none is."""
        edit = Edit(concept="-", window=window)
        acting = (step for step in range(self.count) if edit.active(self.t(self.first_call(step))))
        return next(acting, self.count - 1)

    def moment(self, t: float) -> Moment:
        """Step and timestep at which a site at `t` listens."""
        place = self.place(t)
        return Moment(self.steps[place], self.timesteps[place])


def _pndm_steps(calls: int, runge_kutta: int) -> tuple[int, ...]:
    """Steps of PNDM's calls: `runge_kutta` steps of four; without any, its first step takes a second call."""
    first = [step for step in range(runge_kutta) for _ in range(4)] if runge_kutta else [0, 0]
    later = range(first[-1] + 1, calls)
    return tuple([*first, *later][:calls])


_WHOSE = {True: "Stable Diffusion's", False: "flow-matching"}
FLOW_NEEDED = ("set_timesteps", "step", "timesteps", "order")
"""What pipelines of flow matching ask of a scheduler."""


def rehearsed(scheduler: Any, steps: int, unet: bool = True, unseeded: str = "", **setting: Any) -> Schedule:
    """Set a scheduler's timesteps, after a rehearsal of its steps without a model.

    Args:
        unet: whether the pipeline draws with a U-Net, and asks of any sampler what Stable Diffusion's do.
        unseeded: the pipeline's class, if it hands no generator to the sampler's steps.
        setting: how the pipeline sets its timesteps; by the number of steps alone where nothing is given.

    Raises:
        InputError: pictures cannot be drawn with this sampler (it lacks what Stable Diffusion's pipelines need, runs
            from picture to noise, or fails at so many steps), or it draws noise that does not belong to the seed.
    """
    name = type(scheduler).__name__
    needed = NEEDED if unet or not samples_flows(name) else FLOW_NEEDED
    instead = "; model.scheduler=ddim takes DDIM in its place" if takes_ddim(scheduler) else ""
    missing = [attribute for attribute in needed if not hasattr(scheduler, attribute)]
    if missing:
        raise InputError(
            f"The sampler {name} does not fit {_WHOSE[needed == NEEDED]} pipelines (it has no {', '.join(missing)})"
            f"{instead}."
        )
    try:
        scheduler.set_timesteps(**(setting or {"num_inference_steps": steps}))
        first, second = (_rehearsal(scheduler, seed, not unseeded) for seed in (0, 1))
    except Exception as error:  # whatever a sampler may throw that was made for other pipelines
        raise InputError(
            f"The sampler {name} cannot draw pictures in {steps} steps ({first_line(error)}){instead}."
        ) from error
    if not torch.equal(first, second):
        why = f" ({unseeded} does not hand the seed's generator to its steps)" if unseeded else ""
        raise InputError(
            f"The sampler {name} draws noise that does not belong to a picture's seed{why}, so that no picture could "
            f"be drawn twice{instead or '; name the model with a sampler that draws none'}."
        )
    schedule = Schedule.of(scheduler)
    if any(later > earlier for earlier, later in zip(schedule.timesteps, schedule.timesteps[1:], strict=False)):
        raise InputError(f"The sampler {name} runs from picture to noise{instead}.")
    return schedule


def _rehearsal(scheduler: Any, seed: int, seeded: bool) -> Tensor:
    """What a copy of the scheduler makes of noise with a model that predicts a tenth of its input, [1, 4, 2, 2].

    Args:
        seed: of torch's own random numbers, which must not matter.
        seeded: whether its steps are handed a generator.
    """
    own = copy.deepcopy(scheduler)
    for patched in ("step", "set_timesteps"):  # by whoever watches the pipeline meanwhile
        vars(own).pop(patched, None)
    generator = torch.Generator("cpu").manual_seed(0)
    takes = inspect.signature(own.step).parameters
    extra: dict[str, Any] = {"generator": [generator]} if seeded and "generator" in takes else {}
    x = torch.randn((1, 4, 2, 2), generator=generator) * getattr(own, "init_noise_sigma", 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for timestep in own.timesteps:
            predicted = 0.1 * (own.scale_model_input(x, timestep) if hasattr(own, "scale_model_input") else x)
            x = own.step(predicted, timestep, x, return_dict=False, **extra)[0]
    return torch.nan_to_num(x)

"""How the workers of a run are grouped, what each needs, and how long and how often they may try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from annotated_types import Ge

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Effect, Natural, NonNegative, Positive, setting, settings


@settings("pools")
class PoolConfig:
    """Workers of one kind."""

    stages: tuple[str, ...] = setting(
        Effect.NOTHING,
        "Consecutive stages that one worker does (``generate``, ``detect``, ``segment``, ``evidence``).",
        default=(),
    )
    workers: Natural = setting(
        Effect.NOTHING, "How many; 0: as many as the cluster has room for when the run starts.", default=0
    )
    cpus: NonNegative = setting(Effect.NOTHING, "CPUs of each worker, fractions allowed.", default=1.0)
    gpus: NonNegative | None = setting(
        Effect.NOTHING,
        "GPUs of each worker, fractions allowed: with ``gpus: 0.5`` two workers share a device. Left out: one where "
        "the device of one of its models is ``cuda``, else none.",
        default=None,
    )
    resources: dict[str, Positive] = setting(
        Effect.NOTHING,
        "Custom resources of each worker, as the cluster's nodes name them, e.g. ``{diffusion: 1}``.",
        default_factory=dict,
    )
    labels: dict[str, str] = setting(
        Effect.NOTHING,
        "Labels of the nodes its workers may run on, e.g. ``{ray.io/accelerator-type: A100}``; Ray's "
        "selectors ``!a``, ``in(a, b)`` and ``!in(a, b)`` are understood.",
        default_factory=dict,
    )
    memory_gib: NonNegative = setting(
        Effect.NOTHING,
        "A worker may allocate this much beyond what its models take, and asks the cluster for it; the item "
        "that wants more fails. 0 sets no limit.",
        default=0.0,
    )

    @property
    def name(self) -> str:
        """What people call the pool: its stages."""
        return "+".join(self.stages) or "worker"

    @property
    def demand(self) -> dict[str, float]:
        """What one worker takes of a node, by Ray's names."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus or 0.0, "memory": self.memory_gib * 2**30, **self.resources}
        return {name: float(amount) for name, amount in amounts.items() if amount}


@settings("limits")
class LimitConfig:
    """When something that does not work is given up."""

    attempts: Count = setting(
        Effect.NOTHING,
        "How often the same pictures may take a worker down before they are halved, or, one alone, recorded as failed.",
        default=2,
    )
    picture_seconds: NonNegative = setting(
        Effect.NOTHING, "Time for each picture of a shard in each pool; 0 sets no limit.", default=600.0
    )
    start_seconds: Annotated[float, Ge(1)] = setting(
        Effect.NOTHING, "Time for a worker to be placed and to load its models.", default=1800.0
    )
    wait_seconds: NonNegative = setting(
        Effect.NOTHING,
        "How long to wait for a named cluster to have what the pools need; its autoscaler is asked for it.",
        default=0.0,
    )


def check_pools(pools: Sequence[PoolConfig], stages: Sequence[str]) -> None:
    """InputError unless the pools, in order, have every stage of `stages` once."""
    named = [stage for pool in pools for stage in pool.stages]
    if pools and named != list(stages):
        raise InputError(
            f"pools name the stages {', '.join(named) or 'none'}; "
            f"together and in order they must be {', '.join(stages)}."
        )


def with_devices(pool: PoolConfig, devices: Mapping[str, str]) -> PoolConfig:
    """The pool with a GPU for each worker where a model of its stages is on one and nothing else was said.

    Without, Ray hides no device from a worker, and all of them would work on the first one.

    Args:
        devices: of the models, by stage.

    Raises:
        InputError: such a pool that asks for no GPU.
    """
    on = [stage for stage in pool.stages if devices.get(stage, "cpu").partition(":")[0] == "cuda"]
    if not on or pool.gpus:
        return pool
    if pool.gpus is not None:
        raise InputError(
            f"The pool {pool.name} has the model of {', '.join(on)} on {devices[on[0]]} and asks for gpus: 0; leave "
            "gpus out, which gives each worker one, or state a fraction, such as 0.5 where two workers share a device."
        )
    return replace(pool, gpus=1.0)

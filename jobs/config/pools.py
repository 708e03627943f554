"""How the workers of a run are grouped, what each needs, and how long and how often they may try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class PoolConfig:
    """Workers of one kind.

    Attributes:
        stages: consecutive stages that one worker does (``generate``, ``detect``, ``segment``, ``evidence``).
        workers: how many; 0: as many as the cluster has room for when the run starts.
        cpus, gpus: of each worker, fractions allowed: with ``gpus: 0.5`` two workers share a device.
        resources: custom resources of each worker, as the cluster's nodes name them, e.g. ``{diffusion: 1}``.
        labels: labels of the nodes its workers may run on, e.g. ``{ray.io/accelerator-type: A100}``; Ray's selectors
            ``!a``, ``in(a, b)`` and ``!in(a, b)`` are understood.
        memory_gib: a worker may allocate this much beyond what its models take, and asks the cluster for it;
            the item that wants more fails. 0 sets no limit.
    """

    stages: tuple[str, ...] = ()
    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    memory_gib: float = 0.0

    def __post_init__(self) -> None:
        for name in ("workers", "cpus", "gpus", "memory_gib"):
            if getattr(self, name) < 0:
                raise InputError(f"pools: {name} must be 0 or more, not {getattr(self, name)}.")
        for name, amount in self.resources.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or amount <= 0:
                raise InputError(f"pools: resources.{name} must be a number above 0, not {amount!r}.")
        for name, label in self.labels.items():
            if not isinstance(label, str):
                raise InputError(f"pools: labels.{name} must be text, not {label!r}.")

    @property
    def name(self) -> str:
        """What people call the pool: its stages."""
        return "+".join(self.stages) or "worker"

    @property
    def demand(self) -> dict[str, float]:
        """What one worker takes of a node, by Ray's names."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_gib * 2**30, **self.resources}
        return {name: float(amount) for name, amount in amounts.items() if amount}


@dataclass(frozen=True)
class LimitConfig:
    """When something that does not work is given up.

    Attributes:
        attempts: how often the same pictures may take a worker down before they are halved, or, one alone, recorded
            as failed.
        picture_seconds: time for each picture of a shard in each pool; 0 sets no limit.
        start_seconds: time for a worker to be placed and to load its models.
        wait_seconds: how long to wait for a named cluster to have what the pools need; its autoscaler is asked for it.
    """

    attempts: int = 2
    picture_seconds: float = 600.0
    start_seconds: float = 1800.0
    wait_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("picture_seconds", 0), ("start_seconds", 1), ("wait_seconds", 0)):
            if not getattr(self, name) >= least:
                raise InputError(f"limits.{name} must be at least {least}, not {getattr(self, name)}.")


def check_pools(pools: Sequence[PoolConfig], stages: Sequence[str]) -> None:
    """InputError unless the pools, in order, have every stage of `stages` once."""
    named = [stage for pool in pools for stage in pool.stages]
    if pools and named != list(stages):
        raise InputError(
            f"pools name the stages {', '.join(named) or 'none'}; "
            f"together and in order they must be {', '.join(stages)}."
        )

"""Actors that live beside the workers of a run and are sent calls: those that train while others sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from gazetteer.data.core.errors import GazetteerError
from gazetteer.jobs.executors.ray.actor_pool import ActorPool
from gazetteer.jobs.executors.ray.driver import TICK, check_versions
from gazetteer.jobs.executors.ray.executor import Pools
from gazetteer.jobs.executors.ray.worker import Inhabited
from gazetteer.jobs.executors.stop import check_stop


@contextmanager
def ray_companions(pools: Pools, builds: Sequence[Callable[[], Any]]) -> Iterator[list[RayCompanion]]:
    """What each of `builds` makes, in an actor of the last of the pools, which is kept for them.

    Raises:
        GazetteerError: one does not start; from one of `builds`.
    """
    configs, nodes = pools.place()
    places = ActorPool(configs[-1], nodes=nodes[-1])
    made: list[RayCompanion] = []
    try:
        for build in builds:
            options = places.options(pools.session.environment)
            actor = pools.ray.remote(max_restarts=0, max_task_retries=0, **options)(Inhabited).remote(build)
            made.append(RayCompanion(pools, actor))
        begun = [companion.send("start") for companion in made]
        end = time.monotonic() + pools.limits.start_seconds
        for answer in begun:
            check_versions(answer(end))
        yield made
    finally:
        if not pools.session.lost:
            for companion in made:
                pools.ray.kill(companion.actor)


class RayCompanion:
    """A `Companion` in an actor."""

    def __init__(self, pools: Pools, actor: Any) -> None:
        self.pools, self.actor = pools, actor

    def send(self, method: str, *given: Any) -> Callable[..., Any]:
        """As `Companion.send`."""
        called = self.actor.start.remote() if method == "start" else self.actor.call.remote(method, *given)
        return partial(self._wait, called)

    def _wait(self, reference: Any, end: float = float("inf")) -> Any:
        """The result behind a reference."""
        ray = self.pools.ray
        while not ray.wait([reference], timeout=TICK)[0]:
            check_stop()
            self.pools.session.check()
            if time.monotonic() > end:
                raise GazetteerError(
                    f"A process of the pool {self.pools.asked[-1].name} did not start within "
                    f"{self.pools.limits.start_seconds:g} s."
                )
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GazetteerError):
                raise error.cause from error
            raise GazetteerError(f"{type(error.cause).__name__}: {error.cause}") from error
        except ray.exceptions.RayError as error:
            raise GazetteerError(
                f"A process of the pool {self.pools.asked[-1].name} was lost ({type(error).__name__}); run the same "
                "command again: it resumes."
            ) from error

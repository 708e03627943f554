"""Do the pools fit on the cluster? Answered before anything starts, naming what is missing.

Ray's placement groups would reserve the same room, but one that does not fit stays pending without a word about which
resource of which pool is short, and cannot tell how many workers of an open pool (``workers: 0``) there is room for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.pools import PoolConfig

_SLACK = 1e-6


@dataclass(frozen=True)
class Node:
    """What a node offers: resources by Ray's names, and its labels."""

    resources: dict[str, float]
    labels: dict[str, str]


def place(pools: Sequence[PoolConfig], nodes: Sequence[Node]) -> list[PoolConfig]:
    """The pools with their sizes: those with ``workers: 0`` share out what the others leave, at least one each.

    The most demanding workers are placed first, each on the node that it leaves fullest.

    Raises:
        InputError: there is no room; says which pool, what each worker needs, for how many there is room, and what
            the nodes have.
    """
    free = [dict(node.resources) for node in nodes]
    placed = [0] * len(pools)
    by_need = sorted(range(len(pools)), key=lambda i: (-pools[i].gpus, -sum(pools[i].resources.values()), i))
    for index in by_need:
        wanted = max(1, pools[index].workers)
        while placed[index] < wanted and _take(pools[index], nodes, free):
            placed[index] += 1
        if placed[index] < wanted:
            raise InputError(_missing(pools[index], wanted, placed[index], nodes, free))
    growing = [index for index in by_need if pools[index].workers == 0 and pools[index].demand]
    while growing:
        # One each in turn, so that no pool starves another that needs the same.
        growing = [index for index in growing if _take(pools[index], nodes, free)]
        for index in growing:
            placed[index] += 1
    return [replace(pool, workers=count) for pool, count in zip(pools, placed, strict=True)]


def _take(pool: PoolConfig, nodes: Sequence[Node], free: list[dict[str, float]]) -> bool:
    fitting = [
        (sum(there.get(name, 0.0) - amount for name, amount in pool.demand.items()), index)
        for index, (node, there) in enumerate(zip(nodes, free, strict=True))
        if _matches(pool, node) and all(there.get(name, 0.0) + _SLACK >= n for name, n in pool.demand.items())
    ]
    if not fitting:
        return False
    _, index = min(fitting)
    for name, amount in pool.demand.items():
        free[index][name] -= amount
    return True


def _matches(pool: PoolConfig, node: Node) -> bool:
    return all(_selects(selector, node.labels.get(name)) for name, selector in pool.labels.items())


def _selects(selector: str, label: str | None) -> bool:
    """Whether a node with this label, or without it, is one that Ray's selector means: ``a``, ``!a``, ``in(a, b)``."""
    plain = selector.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", plain)
    wanted = [one.strip() for one in (listed[1].split(",") if listed else [plain])]
    return (label in wanted) != selector.startswith("!")


def _missing(pool: PoolConfig, wanted: int, placed: int, nodes: Sequence[Node], free: list[dict[str, float]]) -> str:
    labels = "".join(f" on a node labelled {name}={value}" for name, value in pool.labels.items())
    have = "; ".join(_amounts(node.resources) or "nothing" for node in nodes[:8]) or "no nodes"
    lacking = sorted(name for name in pool.demand if all(there.get(name, 0.0) < pool.demand[name] for there in free))
    return (
        f"The pool {pool.name} needs {wanted} workers with {_amounts(pool.demand)} each{labels}, but there is room for "
        f"{placed}{': too little ' + ', '.join(lacking) if lacking else ''}; the nodes have: {have}."
    )


def _amounts(resources: dict[str, float]) -> str:
    shown = {name: amount for name, amount in sorted(resources.items()) if not name.startswith("node:")}
    return ", ".join(
        f"{name} {amount / 2**30:.1f} GiB" if name in ("memory", "object_store_memory") else f"{name} {amount:g}"
        for name, amount in shown.items()
    )

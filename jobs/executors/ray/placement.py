"""Do the pools fit on the cluster? Answered before anything starts, naming what is missing.

Ray's placement groups would reserve the same room, but one that does not fit stays pending without a word about which
resource of which pool is short, and cannot tell how many workers of an open pool (``workers: 0``) there is room for.
"""

from __future__ import annotations

import re
from collections import Counter
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


@dataclass(frozen=True)
class Placement:
    """Pools with their sizes, and per pool the node of every worker (index into the nodes)."""

    pools: list[PoolConfig]
    nodes: list[list[int]]

    @property
    def workers(self) -> int:
        """How many in all."""
        return sum(pool.workers for pool in self.pools)


def place(pools: Sequence[PoolConfig], nodes: Sequence[Node]) -> Placement:
    """The pools with their sizes: those with ``workers: 0`` share out what the others leave, at least one each.

    The most demanding workers are placed first; those of a pool are spread over the nodes, unless fewer then fit than
    when each node is filled before the next.

    Raises:
        InputError: there is no room; says which pool, what each worker needs, for how many there is room, and what
            the nodes have.
    """
    packed = _placed(pools, nodes, spread=False)
    try:
        spread = _placed(pools, nodes, spread=True)
    except InputError:
        return packed
    return spread if spread.workers >= packed.workers else packed


def _placed(pools: Sequence[PoolConfig], nodes: Sequence[Node], spread: bool) -> Placement:
    free = [dict(node.resources) for node in nodes]
    nodes_of: list[list[int]] = [[] for _ in pools]

    def take(index: int) -> bool:
        node = _take(pools[index], nodes, free, Counter(nodes_of[index]) if spread else Counter())
        nodes_of[index] += [] if node is None else [node]
        return node is not None

    by_need = sorted(range(len(pools)), key=lambda i: (-(pools[i].gpus or 0), -sum(pools[i].resources.values()), i))
    for index in by_need:
        wanted = max(1, pools[index].workers)
        while len(nodes_of[index]) < wanted and take(index):
            pass
        if len(nodes_of[index]) < wanted:
            raise InputError(_missing(pools[index], wanted, len(nodes_of[index]), nodes, free))
    growing = [index for index in by_need if pools[index].workers == 0 and pools[index].demand]
    while growing:
        # One each in turn, so that no pool starves another that needs the same.
        growing = [index for index in growing if take(index)]
    return Placement([replace(pool, workers=len(on)) for pool, on in zip(pools, nodes_of, strict=True)], nodes_of)


def _take(pool: PoolConfig, nodes: Sequence[Node], free: list[dict[str, float]], placed: Counter[int]) -> int | None:
    """The node that a worker goes to: of those with the fewest of its pool the one that it leaves fullest."""
    fitting = [
        (placed[index], sum(left.get(name, 0.0) - amount for name, amount in pool.demand.items()), index)
        for index, (node, left) in enumerate(zip(nodes, free, strict=True))
        if _matches(pool, node) and all(left.get(name, 0.0) + _SLACK >= n for name, n in pool.demand.items())
    ]
    if not fitting:
        return None
    *_, index = min(fitting)
    for name, amount in pool.demand.items():
        free[index][name] -= amount
    return index


def _matches(pool: PoolConfig, node: Node) -> bool:
    return all(_selects(selector, node.labels.get(name)) for name, selector in pool.labels.items())


def _selects(selector: str, label: str | None) -> bool:
    """Whether a node with this label, or without it, is one that Ray's selector means: ``a``, ``!a``, ``in(a, b)``."""
    plain = selector.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", plain)
    wanted = [word.strip() for word in (listed[1].split(",") if listed else [plain])]
    return (label in wanted) != selector.startswith("!")


def _missing(pool: PoolConfig, wanted: int, placed: int, nodes: Sequence[Node], free: list[dict[str, float]]) -> str:
    labels = "".join(f" on a node labelled {name}={value}" for name, value in pool.labels.items())
    have = "; ".join(_amounts(node.resources) or "nothing" for node in nodes[:8]) or "no nodes"
    lacking = sorted(name for name in pool.demand if all(left.get(name, 0.0) < pool.demand[name] for left in free))
    shared = "; where workers shall share a device, state gpus: 0.5 in pools" if "GPU" in lacking else ""
    return (
        f"The pool {pool.name} needs {wanted} workers with {_amounts(pool.demand)} each{labels}, but there is room for "
        f"{placed}{': too little ' + ', '.join(lacking) if lacking else ''}; the nodes have: {have}{shared}."
    )


def _amounts(resources: dict[str, float]) -> str:
    shown = {name: amount for name, amount in sorted(resources.items()) if not name.startswith("node:")}
    return ", ".join(
        f"{name} {amount / 2**30:.1f} GiB" if name in ("memory", "object_store_memory") else f"{name} {amount:g}"
        for name, amount in shown.items()
    )

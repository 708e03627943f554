"""Which pictures to make next, so that every feature and every concept is seen often enough to be judged.

A feature needs `wanted` pictures in which it fires, a concept `wanted` in which it is present. What is
missing is its deficit d. A prompt that names the concepts c is expected to switch feature f on with
probability

    p(f | prompt) = max(images with f / images, max over c of images with f and c / (images with c + 1)),

from the evidence so far (the + 1 keeps a rate seen in few pictures from looking certain; the maximum, unlike
a product over concepts, does not count twice what goes together), and to show every concept that it names.
Prompts are taken greedily by sum over f of min(1, d_f) p(f | prompt), and each choice lowers d_f by p(f |
prompt). A feature that never fired has no direction to look in and is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Gt, Le
from numpy.typing import NDArray

from gazetteer.data.core.settings import Effect, Natural, setting, settings
from gazetteer.labeling.evidence.site_codes import site_order
from gazetteer.labeling.rules.seen import Seen

Floats = NDArray[np.floating]
_EXPECTED = 2**26  # expectations kept at a time, features x groups of prompts
_REFRESH = 64
_NOTHING = 1e-3  # a gain below this is rounding


@settings("coverage")
class CoverageConfig:
    """How the picture budget is spent."""

    wanted: Natural = setting(
        Effect.SELECTION, "Pictures in which every feature should fire and every concept be present.", default=20
    )
    first: Annotated[float, Gt(0), Le(1)] = setting(
        Effect.SELECTION, "Share of the pictures made before looking at the evidence, in (0, 1].", default=0.6
    )


@dataclass
class _Needs:
    """What is missing: D features and concepts with a deficit.

    Attributes:
        deficit: float64 [D].
        floor: float32 [D], p of any prompt.
        rates: float32 [C, D], p of a prompt that names the concept.
        index: concept -> row of `rates`.
    """

    deficit: Floats
    floor: Floats
    rates: Floats
    index: dict[str, int]

    def expected(self, concepts: Collection[str]) -> Floats:
        """p of a prompt that names these concepts: float32 [D]."""
        rows = [self.index[name] for name in concepts]
        return np.maximum(self.floor, self.rates[rows].max(axis=0)) if rows else self.floor


def _needs(evidence: Iterable[pa.Table], named: set[str], wanted: int) -> _Needs:
    """Deficits of features over all sites, then of concepts."""
    seen = Seen(evidence)
    names = sorted(named | seen.names.keys())
    index = {name: number for number, name in enumerate(names)}
    place = np.array([index[name] for name in seen.names], np.int64)
    sites = sorted(seen.sites, key=site_order)
    parts: list[tuple[Floats, Floats, Floats]] = [seen.sites[site].needs(place, len(names), wanted) for site in sites]
    shown = seen.presence()
    # Only a named concept can be asked for; one that no prompt of the pool names has no direction either.
    short = np.array([index[name] for name in names if name in named and shown.get(name, 0) < wanted], np.int64)
    missing = wanted - np.array([shown.get(names[number], 0) for number in short], np.float64)
    parts.append((missing, np.zeros(len(short)), np.eye(len(names), dtype=np.float32)[:, short]))
    deficit, floor, rates = (np.concatenate([part[i] for part in parts], axis=-1) for i in range(3))
    return _Needs(deficit, floor.astype(np.float32), rates, index)


def choose_prompts(
    evidence: pa.Table | Iterable[pa.Table],
    pool: Sequence[tuple[str, tuple[str, ...]]],
    used: Collection[str],
    wanted: int,
    budget: int,
    seed: int,
) -> list[str]:
    """The next prompts to make pictures of, best first.

    Args:
        evidence: schemas.EVIDENCE so far in one or any number of tables, read one after the other; of their columns
            `seen.COLUMNS` are needed.
        pool: (prompt, concepts it names); repeated prompts count once.
        used: prompts that have a picture already; they are taken again only when the rest of the pool is used
        up,
            and then the whole pool is open once more.
        wanted: pictures in which every feature should fire and every concept be present.
        budget: how many prompts to return.
        seed: decides between equally good prompts.
    Returns:
        `budget` prompts (none of an empty pool). When nothing more is expected to be missing the rest is
        drawn from the pool by digest. A function of the arguments' content; the pool's order is immaterial.
    """
    concepts = {prompt: tuple(sorted(set(names))) for prompt, names in sorted(pool)}
    tables = [evidence] if isinstance(evidence, pa.Table) else evidence
    needs = _needs(tables, {name for names in concepts.values() for name in names}, wanted)
    chosen: list[str] = []
    taken = set(used)
    while len(chosen) < budget and concepts:
        left = sorted((prompt for prompt in concepts if prompt not in taken), key=lambda prompt: _digest(seed, prompt))
        fresh = _greedy(needs, left, concepts, budget - len(chosen)) if left else []
        chosen += fresh
        taken = taken | set(fresh) if left else set()
    return chosen


def _digest(seed: int, prompt: str) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{prompt}".encode()).digest()


def _greedy(needs: _Needs, prompts: Sequence[str], concepts: dict[str, tuple[str, ...]], budget: int) -> list[str]:
    """Up to `budget` of `prompts`, each once, earlier ones first among equals; lowers the deficits in place.

    Prompts that name the same concepts are one group. A group's gain changes only with features whose deficit
    is below one picture, so it is updated for those alone.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for prompt in reversed(prompts):
        groups.setdefault(concepts[prompt], []).append(prompt)
    place = {prompt: number for number, prompt in enumerate(prompts)}
    names = sorted(groups, key=lambda group: place[groups[group][-1]])
    # Thinned evenly when there are too many features to hold: a sample of the needs guides as well.
    limit = max(1, _EXPECTED // len(names))
    sampled = np.unique(np.linspace(0, len(needs.deficit) - 1, min(limit, len(needs.deficit))).astype(np.int64))
    expected = np.empty((len(sampled), len(names)), np.float32)
    for number, name in enumerate(names):
        expected[:, number] = needs.expected(name)[sampled]
    chosen: list[str] = []
    closed = np.zeros(len(names))
    worth: Floats = np.minimum(1.0, needs.deficit[sampled])
    gain: Floats = np.zeros(len(names))
    while len(chosen) < min(budget, len(prompts)):
        if len(chosen) % _REFRESH == 0:  # so that rounding never adds up
            gain = worth.astype(np.float32) @ expected
        best = int(np.argmax(gain - closed))
        if gain[best] - closed[best] < _NOTHING:
            break
        chosen.append(groups[names[best]].pop())
        if not groups[names[best]]:
            closed[best] = np.inf
        needs.deficit = np.maximum(0.0, needs.deficit - needs.expected(names[best]))
        now = np.minimum(1.0, needs.deficit[sampled])
        fell = np.flatnonzero(now < worth)
        gain = gain - (worth[fell] - now[fell]).astype(np.float32) @ expected[fell]
        worth = now
    done = set(chosen)
    return chosen + [prompt for prompt in prompts if prompt not in done][: budget - len(chosen)]

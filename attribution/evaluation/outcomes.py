"""Same-seed pairs become counts: what was found before and after an edit, case by case."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.evaluation.cases import Case
from gazetteer.attribution.evaluation.distances import perceptual_distance, pooled, traits
from gazetteer.attribution.evaluation.evaluators import Observation


def _none() -> NDArray[np.float64]:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Outcome:
    """Found or not in same-seed pairs, per case, for one concept and one edit.

    Attributes:
        target: [cases that count for the target, 2]: found in the intact picture, in the edited one.
        area: [cases that name the target, 2]: fraction of the picture it covers, intact and edited.
        named: [cases that name the target, 2]: found in the intact picture, in the edited one.
        others: [cases, 2]: how many other named concepts were found, intact and edited.
        near, far: the same, of the target's neighbours and of the rest.
        unnamed: [cases that do not name the target, 2]: found in the intact picture, in the edited one.
        read: [cases that name the target, 2]: read by the classifier in the intact picture, in the edited one; empty
            where it does not know the target.
        read_others: as `others`, by the classifier.
        change: [cases that do not name the target]: mean absolute difference of the pictures, 0..1.
        distance: [cases that do not name the target]: `perceptual_distance` of the pictures; empty without features.
        features: intact and edited [cases that do not name the target, channels] each; empty without features.
        traits: intact and edited [cases that name the target, traits] each (`distances.traits`); empty without
            features.
        by_concept: per other concept, found intact and edited over all cases that name it.
        weights: how many the edit changed.
    """

    target: NDArray[np.float64]
    area: NDArray[np.float64]
    named: NDArray[np.float64]
    others: NDArray[np.float64]
    near: NDArray[np.float64]
    far: NDArray[np.float64]
    unnamed: NDArray[np.float64]
    read: NDArray[np.float64]
    read_others: NDArray[np.float64]
    change: NDArray[np.float64]
    by_concept: Mapping[str, tuple[int, int]]
    distance: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    features: tuple[NDArray[np.float64], NDArray[np.float64]] = field(default_factory=lambda: (_none(), _none()))
    traits: tuple[NDArray[np.float64], NDArray[np.float64]] = field(default_factory=lambda: (_none(), _none()))
    weights: int = 0


_PAIRS = ("target", "area", "named", "others", "near", "far", "unnamed", "read", "read_others")
_TABLES = (*_PAIRS, "change", "distance")


def pack(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """The outcome as arrays, for a file."""
    names = sorted(outcome.by_concept)
    counts = np.array([outcome.by_concept[name] for name in names], dtype=np.int64).reshape(-1, 2)
    return {
        **{name: getattr(outcome, name) for name in _TABLES},
        "concepts": np.array(names, dtype=np.str_), "counts": counts, "weights": np.array(outcome.weights),
        "intact": outcome.features[0].astype(np.float32), "edited": outcome.features[1].astype(np.float32),
        "intact_traits": outcome.traits[0].astype(np.float32), "edited_traits": outcome.traits[1].astype(np.float32),
    }  # fmt: skip


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Outcome:
    """What `pack` packed; features come back as float32 numbers."""
    counts = zip(arrays["concepts"].tolist(), arrays["counts"].tolist(), strict=True)
    return Outcome(
        **{name: arrays[name] for name in _TABLES}, by_concept={name: (old, new) for name, (old, new) in counts},
        features=(arrays["intact"].astype(np.float64), arrays["edited"].astype(np.float64)),
        traits=(arrays["intact_traits"].astype(np.float64), arrays["edited_traits"].astype(np.float64)),
        weights=int(arrays["weights"]),
    )  # fmt: skip


def compare(
    goal: str,
    concept: str,
    cases: Sequence[Case],
    intact: Sequence[Observation],
    edited: Sequence[Observation],
    neighbours: Collection[str] = (),
) -> Outcome:
    """Count what was found in same-seed pairs; for amplify only cases that the intact model missed count as target.

    Cases that were sought count for nothing else than the target and what the classifier says of it.
    """
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in _PAIRS}
    change: list[float] = []
    by_concept: dict[str, tuple[int, int]] = {}
    pairs: list[tuple[Observation, Observation]] = []
    naming: list[tuple[Observation, Observation]] = []
    for case, before, after in zip(cases, intact, edited, strict=True):
        had, has = set(before.found), set(after.found)
        here = (concept in had, concept in has)
        if concept in case.named:
            if goal == "erase" or concept not in had:
                rows["target"].append(here)
            if (was := before.reads(concept)) is not None and (now := after.reads(concept)) is not None:
                rows["read"].append((was, now))
        if case.sought:
            continue
        if concept in case.named:
            rows["area"].append((before.found.get(concept, 0.0), after.found.get(concept, 0.0)))
            rows["named"].append(here)
            naming.append((before, after))
        else:
            change.append(float(np.abs(before.image.astype(np.float64) - after.image).mean() / 255))
            rows["unnamed"].append(here)
            pairs.append((before, after))
        rest = case.named - {concept}
        for name, concepts in (("others", rest), ("near", rest & set(neighbours)), ("far", rest - set(neighbours))):
            rows[name].append((len(concepts & had), len(concepts & has)))
        if before.read is not None and after.read is not None:
            rows["read_others"].append((len(rest & set(before.read)), len(rest & set(after.read))))
        for other in rest:
            old, new = by_concept.get(other, (0, 0))
            by_concept[other] = (old + (other in had), new + (other in has))
    arrays: dict[str, Any] = {n: np.array(values, dtype=np.float64).reshape(-1, 2) for n, values in rows.items()}
    return Outcome(**arrays, change=np.array(change), by_concept=by_concept, **_maps(pairs), **_traits(naming))


def _maps(pairs: Sequence[tuple[Observation, Observation]]) -> dict[str, Any]:
    read = [
        (intact.maps, edited.maps) for intact, edited in pairs if intact.maps is not None and edited.maps is not None
    ]
    if not read:
        return {}
    return {
        "distance": np.array([perceptual_distance(intact, edited) for intact, edited in read]),
        "features": (pooled([intact for intact, _ in read]), pooled([edited for _, edited in read])),
    }


def _traits(pairs: Sequence[tuple[Observation, Observation]]) -> dict[str, Any]:
    read = [
        (intact.maps, edited.maps) for intact, edited in pairs if intact.maps is not None and edited.maps is not None
    ]
    return {"traits": (traits([intact for intact, _ in read]), traits([edited for _, edited in read]))} if read else {}

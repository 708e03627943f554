"""Simulated pictures and features whose truth is known, of which `benchmarks.label_null` asks the whole rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.reduce import join_verdicts, site_candidates, site_tests

GRID = 8
CELLS = GRID * GRID
SITE = Site("simulated", "cond", 0.5)
STYLES = ("golden", "grey", "old")
SKY, SEA, BOAT, SUN = 0, 1, 2, 3
Bools = NDArray[np.bool_]
ROWS, COLUMNS = np.indices((GRID, GRID)).reshape(2, CELLS)


@dataclass
class Simulated:
    """Pictures with concepts and looks, and what some features do on them.

    Attributes:
        concepts: bool [N, C, cells]; `looks`: bool [N, styles]; `fires`: bool [N, F, cells].
        ignored: bool [N, cells], where nobody decided what the picture shows.
    """

    concepts: Bools
    looks: Bools
    fires: list[Bools] = field(default_factory=list)
    ignored: Bools | None = None

    @property
    def pictures(self) -> int:
        return len(self.concepts)

    def candidates(self, config: LabelConfig) -> tuple[list[dict[str, Any]], int]:
        """Rows of schemas.CANDIDATES by the real rules, and how many pairs were tested."""
        fires = np.stack(self.fires, axis=1)
        names = tuple(f"c{number:04d}" for number in range(self.concepts.shape[1]))
        ids = tuple(f"i{number:05d}" for number in range(self.pictures))
        image, feature, cell = np.nonzero(fires)
        ignored = np.zeros((self.pictures, CELLS), np.bool_) if self.ignored is None else self.ignored
        codes = SiteCodes(SITE, ids, GRID, GRID, image.astype(np.int32), feature.astype(np.int32),
                          cell.astype(np.int32), np.ones(len(image), np.float32),
                          None if self.ignored is None else ignored[image, cell])  # fmt: skip
        shown = np.asarray(self.concepts.any(axis=2))
        of, which = np.nonzero(shown)
        maps = ConceptMaps(
            ids, names, np.full(self.pictures, "discovery"), np.full((self.pictures, 2), GRID),
            np.ones(shown.shape, np.bool_), of, which, {(GRID, GRID): self.concepts[of, which].astype(np.int32)},
        )  # fmt: skip
        evidence = build_evidence(
            [
                ImageEvidenceInput(
                    ids[i], "discovery", (GRID, GRID), names,
                    [(names[c], self.concepts[i, c].reshape(GRID, GRID)) for c in np.flatnonzero(shown[i])],
                    {SITE: _sparse(fires[i], ignored[i])},
                )
                for i in range(self.pictures)
            ],
            names,
        )  # fmt: skip
        tests = site_tests(codes, maps, self.looks, config)
        verdicts = join_verdicts(SITE, [tests], maps.concepts, config)
        table = site_candidates(codes, maps, self.looks, evidence, "simulated", config, verdicts)
        return table.to_pylist(), tests.pairs.count


def _sparse(fires: Bools, ignored: Bools) -> SparseMap:
    """Activations 1 of the features bool [F, cells] of a picture as slots, as many a cell as the fullest needs."""
    feature, cell = np.nonzero(fires)
    k = max(1, int(fires.sum(axis=0).max()))
    slots, values = np.zeros((CELLS, k), np.uint32), np.zeros((CELLS, k), np.float16)
    order = np.argsort(cell, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    slots[cell[order], place] = feature[order]
    values[cell[order], place] = np.where(ignored[cell[order]], -1.0, 1.0)
    return SparseMap(GRID, GRID, k, slots.ravel(), values.ravel())


def blob(random: np.random.Generator, low: int = 1, high: int = 4) -> Bools:
    """A square of cells anywhere."""
    side = int(random.integers(low, high + 1))
    top, left = random.integers(0, GRID - side + 1, 2)
    inside: Bools = (top <= ROWS) & (top + side > ROWS) & (left <= COLUMNS) & (left + side > COLUMNS)
    return inside


def world(random: np.random.Generator, pictures: int, others: int = 12) -> Simulated:
    """Pictures as the head of this file describes them."""
    concepts = np.zeros((pictures, 4 + others, CELLS), np.bool_)
    looks = random.random((pictures, len(STYLES))) < 0.12
    often = random.uniform(0.05, 0.35, others)
    for i in range(pictures):
        horizon = int(random.integers(2, 7))
        if random.random() < 0.9:
            concepts[i, SKY] = horizon > ROWS
        if random.random() < 0.35:
            concepts[i, SEA] = horizon <= ROWS
            if random.random() < 0.7:
                left = int(random.integers(0, GRID - 1))
                concepts[i, BOAT] = (np.abs(ROWS - horizon) < 1) & (left <= COLUMNS) & (left + 2 > COLUMNS)
        if random.random() < (0.8 if looks[i, 0] else 0.03):
            concepts[i, SUN] = blob(random, 2, 3)
        for number in np.flatnonzero(random.random(others) < often):
            concepts[i, 4 + number] = blob(random)
    return Simulated(concepts, looks)


def somewhere(random: np.random.Generator, pictures: int) -> Bools:
    """A feature that knows nothing: blobs, or patches of the whole frame, in 5 pictures to half of them."""
    fires = np.zeros((pictures, CELLS), np.bool_)
    count = int(np.exp(random.uniform(np.log(5), np.log(max(6, pictures / 2)))))
    wide = random.random() < 0.3
    for i in random.choice(pictures, count, replace=False):
        fires[i] = random.random(CELLS) < 0.6 if wide else blob(random)
    return fires


def independent(random: np.random.Generator, pictures: int = 308, features: int = 120) -> Simulated:
    made = world(random, pictures)
    made.fires = [somewhere(random, pictures) for _ in range(features)]
    return made


def duplicated(random: np.random.Generator, pictures: int = 308) -> Simulated:
    made = independent(random, pictures, features=12)
    made.fires = [fires for fires in made.fires for _ in range(10)]
    return made


def place(random: np.random.Generator, pictures: int = 308) -> Simulated:
    made = world(random, pictures)
    for number in range(40):
        fires = np.zeros((pictures, CELLS), np.bool_)
        for i in np.flatnonzero(random.random(pictures) < 0.7):
            size = int(random.integers(1, 6))
            axis, far = (ROWS, COLUMNS)[number % 2], number % 4 > 1
            fires[i] = axis >= GRID - size if far else axis < size
        made.fires.append(fires)
    return made


def company(random: np.random.Generator, pictures: int = 308) -> Simulated:
    made = world(random, pictures)
    for number in range(10):
        fires = np.zeros((pictures, CELLS), np.bool_)
        for i in np.flatnonzero(made.concepts[:, SEA].any(axis=1)):
            fraction = 0.3 if number % 2 else 0.8 * made.concepts[i, SEA].mean()
            fires[i] = random.random(CELLS) < fraction
        made.fires.append(fires)
    return made


def style(random: np.random.Generator, pictures: int = 308) -> Simulated:
    made = world(random, pictures)
    for _ in range(10):
        fires = (random.random((pictures, CELLS)) < 0.3) & made.looks[:, :1]
        made.fires.append(fires)
    return made


def holes(random: np.random.Generator, pictures: int = 308, features: int = 120, side: int | None = None) -> Simulated:
    """Features that know nothing, on pictures of which 0 to 60 % is marked to be ignored.

    side: of the frame, from which holes reach inward; None: another one in every picture, or cells at random.
    """
    made = independent(random, pictures, features // 2)
    for _ in range(features - features // 2):
        made.fires.append(random.random((pictures, CELLS)) < random.uniform(0.05, 0.9))
    made.ignored = np.zeros((pictures, CELLS), np.bool_)
    for i in range(pictures):
        share = random.uniform(0, 0.6)
        own = int(random.integers(0, 5)) if side is None else side
        far = (GRID - 1 - ROWS, ROWS, GRID - 1 - COLUMNS, COLUMNS)[own] if own < 4 else random.permutation(CELLS) / GRID
        made.ignored[i] = far < share * GRID
    made.concepts &= ~made.ignored[:, None]
    return made


def bottom(random: np.random.Generator, pictures: int = 308, features: int = 120) -> Simulated:
    return holes(random, pictures, features, side=0)


def open_vocabulary(random: np.random.Generator, pictures: int = 800, words: int = 1000) -> Simulated:
    """Words in 0.3 to 2 % of the pictures each, and features in as few."""
    concepts = np.zeros((pictures, words, CELLS), np.bool_)
    for word in range(words):
        shown = random.choice(pictures, max(2, int(pictures * random.uniform(0.003, 0.02))), replace=False)
        for i in shown:
            concepts[i, word] = blob(random, 2, 7)
    made = Simulated(concepts, np.zeros((pictures, 0), np.bool_))
    for _ in range(60):
        fires = np.zeros((pictures, CELLS), np.bool_)
        count = int(pictures * np.exp(random.uniform(np.log(0.01), np.log(0.3))))
        for i in random.choice(pictures, count, replace=False):
            fires[i] = blob(random, 1, 5)
        made.fires.append(fires)
    return made


def knowing(random: np.random.Generator, made: Simulated, concept: int, pictures: int, cover: float = 0.5) -> Bools:
    """A feature that covers a share of a concept in so many of its pictures (or all), and fires nowhere else."""
    shown = np.flatnonzero(made.concepts[:, concept].any(axis=1))
    fires = np.zeros((made.pictures, CELLS), np.bool_)
    for i in random.choice(shown, min(pictures, len(shown)), replace=False):
        showing = made.concepts[i, concept] & (random.random(CELLS) < cover)
        fires[i] = showing if showing.any() else made.concepts[i, concept]
    return fires

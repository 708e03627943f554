"""What a feature is called, and as what: things, stuff, parts, scenes, looks and places compete for it.

Every explanation of a feature says how much of its activation it accounts for (labeling/rules/kinds/explained.py), and
the feature is called by the one that explains most, when that has evidence of its own and is ahead of all others:

    thing, stuff  the concept's region: both nulls rejected (labeling/rules/significance.py), `dataset_iou` high enough
    part          the same with a small share of the concept covered, but precisely and far above chance
    scene         pictures that show the concept: the first null rejected and not the second, or the whole pictures
                  explain more than the concept's region does
    style         the look's pictures (labeling/rules/kinds/styles.py): q, and the interval of the AUC
    place         where in the picture: activation above the place's share of it, by pictures
    word          of a text stream what a thing is of a picture: the places of the word's tokens; it has no parts, and
                  no place is told there

`specificity` = 1 - (share explained by the best other explanation) / (share explained by this one); the two forms of
one concept, region and scene, are no rivals. Further regions are kept beside the best label when they explain nearly
as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.tables.schemas import CANDIDATES
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.explained import PLACE, SCENE, STYLE, WORD, Explained
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Rivals:
    """The explanations of F features by what they name: N concepts, then looks, then places.

    Attributes:
        explained: what they are taken from; `concepts`: how many of the names are concepts.
        best: float64 [F, N], the larger share of a concept's region and scene; of looks and places their own.
        region: what a concept's region is called that is no stuff: ``thing``, or of a text stream ``word``.
    """

    explained: Explained
    concepts: int
    best: Floats
    region: str = "thing"

    @classmethod
    def of(cls, explained: Explained, region: str = "thing") -> Rivals:
        """From what a split's explanations account for."""
        concepts = explained.forms.count(SCENE)
        regions, scenes = explained.fraction[:, :concepts], explained.fraction[:, concepts : 2 * concepts]
        best = np.concatenate([np.maximum(regions, scenes), explained.fraction[:, 2 * concepts :]], axis=1)
        return cls(explained, concepts, best, region)

    def name(self, number: int) -> str:
        """What a column of `best` names."""
        return self.explained.names[number if number < self.concepts else number + self.concepts]

    def kinds(self, row: Ints, number: Ints, stuff: frozenset[str]) -> NDArray:
        """As what each of these columns is best for its feature: names [T]; None where the column is below 0."""
        names = self.explained.names[: self.concepts]
        told = ["stuff" if name in stuff and self.region == "thing" else self.region for name in names]
        told += self.explained.forms[2 * self.concepts :]
        kinds = np.array([*told, None], object)[number]
        fraction, concept = self.explained.fraction, np.minimum(number, self.concepts - 1)
        region = (number >= 0) & (number < self.concepts)
        kinds[region & (fraction[row, concept] < fraction[row, concept + self.concepts])] = SCENE
        return kinds

    def best_other(self, row: Ints, number: Ints) -> Ints:
        """The best explanation of each feature that is another than the named one: columns of `best` [T], -1: none."""
        if self.best.shape[1] < 2:
            return np.full(len(row), -1)
        top = np.argsort(-self.best, axis=1, kind="stable")[:, :2]
        return np.where(top[row, 0] == number, top[row, 1], top[row, 0])


def decide(
    regions: dict[str, NDArray], other: dict[str, NDArray], rivals: Rivals, held: Explained, config: LabelConfig
) -> dict[str, NDArray]:
    """The columns of schemas.CANDIDATES that say what each row is, whether it is trusted, and its rank.

    Args:
        regions: columns of SCORED by name, of the site's pairs of a feature and a concept.
        other: the same of its looks and places (`style_rows`, `place_rows`), with `kind` and `passes`.
        rivals: from the discovery pictures; `held`: what explains the held-out ones.
    Returns:
        Columns over the rows of `regions`, then of `other`.
    """
    seen = rivals.explained
    stuff = frozenset(name for name in stuff_of(config.stuff, seen.names[: rivals.concepts]).values() if name)
    names_of = [rivals.name(column) for column in range(rivals.best.shape[1])]
    number = {name: i for i, name in enumerate(names_of[: rivals.concepts])}  # a look or place may be called the same
    concept = np.array([number[name] for name in regions["concept"]], np.int64)
    row = np.searchsorted(seen.features, regions["feature"])
    region, scene = seen.fraction[row, concept], seen.fraction[row, concept + rivals.concepts]
    goes, where = _goes_with(regions, config), regions["where_q_value"] <= config.max_q
    as_scene = goes & (~where | (scene > region))
    column = np.where(as_scene, concept + rivals.concepts, concept)
    spoken = rivals.region == WORD
    kind = np.where(np.isin(regions["concept"], [] if spoken else list(stuff)), "stuff", rivals.region).astype(object)
    inside = seen.inside[row, column]
    part = ~as_scene & (regions["recall"] < config.part_recall) & (not spoken)
    part_passes = part & (inside >= config.part_precision) & (regions["lift"] >= config.part_lift)
    kind[part_passes], kind[as_scene] = "part", SCENE
    passes = goes & np.where(
        as_scene, True, where & np.where(part, part_passes, regions["dataset_iou"] >= config.min_dataset_iou)
    )
    tail = np.array([_column_of(seen, name, form) for name, form in zip(other["concept"], other["kind"], strict=True)],
                    np.int64)  # fmt: skip
    row = np.concatenate((row, np.searchsorted(seen.features, other["feature"])))
    column = np.concatenate((column, tail))
    kind = np.concatenate((kind, other["kind"])).astype(object)
    names = np.where(column < rivals.concepts, column, column - rivals.concepts)
    explained, inside = seen.fraction[row, column], seen.inside[row, column]
    rival = rivals.best_other(row, names)
    behind = np.where(rival >= 0, rivals.best[row, np.maximum(rival, 0)], 0.0)
    specific = np.maximum(-1.0, 1 - np.divide(behind, explained, out=np.full(len(row), np.inf), where=explained > 0))
    passes = np.concatenate((passes, other["passes"].astype(np.bool_)))
    passes &= (inside >= config.min_precision) & (explained >= config.min_explained)
    trusted = _trusted(row, kind, explained, passes, specific >= config.min_specificity, config.min_second)
    return {
        "kind": kind, "mass_precision": inside, "explained": explained,
        "heldout_explained": _heldout(held, seen.features[row], column),
        "specificity": np.where(explained > 0, specific, np.nan),
        "runner_up": np.array([*names_of, None], object)[rival], "runner_up_kind": rivals.kinds(row, rival, stuff),
        "runner_up_explained": np.where(rival >= 0, behind, np.nan), "trusted": trusted,
        "rank": _ranks(row, column, explained, trusted),
    }  # fmt: skip


def stuff_of(words: Sequence[str], concepts: Sequence[str]) -> dict[str, str | None]:
    """The concept that every word of `labels.stuff` stands for, however written; None where it stands for none."""
    index = ConceptIndex(dict.fromkeys(concepts, ())) if words else None
    return {word: index.concept(word) if index else None for word in words}


def _goes_with(rows: dict[str, NDArray], config: LabelConfig) -> Bools:
    """Whether the first null is rejected; comparisons with NaN, an untested or undefined value, are false."""
    passing: Bools = (
        (rows["q_value"] <= config.max_q) & (rows["lift"] >= config.min_lift)
        & (rows["images_both"] >= config.min_images)
    )  # fmt: skip
    return passing


def _column_of(explained: Explained, name: str, form: str) -> int:
    return next(i for i, pair in enumerate(zip(explained.names, explained.forms, strict=True)) if pair == (name, form))


def _trusted(row: Ints, kind: NDArray, explained: Floats, passes: Bools, ahead: Bools, second: float) -> Bools:
    """The rows that pass and are ahead of every rival, and regions beside a region that explain nearly as much."""
    best = np.zeros(int(row.max(initial=-1)) + 1)
    first = passes & ahead
    spatial = ~np.isin(kind, (SCENE, STYLE, PLACE))
    np.maximum.at(best, row[first & spatial], explained[first & spatial])
    beside: Bools = passes & spatial & (best[row] > 0) & (explained >= second * best[row])
    return first | beside


def _heldout(held: Explained, feature: Ints, column: Ints) -> Floats:
    """What the same explanation accounts for in held-out pictures; 0 where the feature is silent, NaN without any."""
    if not held.images:
        return np.full(len(feature), np.nan)
    at = np.minimum(np.searchsorted(held.features, feature), max(len(held.features) - 1, 0))
    tested = held.features[at] == feature if len(held.features) else np.zeros(len(feature), np.bool_)
    values = np.zeros(len(feature))
    values[tested] = held.fraction[at[tested], column[tested]]
    return values


def _ranks(row: Ints, column: Ints, explained: Floats, trusted: Bools) -> Floats:
    """1, 2, ... over the trusted rows of each feature, by what they explain; NaN elsewhere."""
    rank = np.full(len(row), np.nan)
    trusted_rows = np.flatnonzero(trusted)
    order = trusted_rows[np.lexsort((column[trusted_rows], -explained[trusted_rows], row[trusted_rows]))]
    starts = np.flatnonzero(np.diff(row[order], prepend=-1))
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order)))) + 1
    return rank


def candidates_of(columns: Sequence[dict[str, NDArray]], decided: dict[str, NDArray]) -> pa.Table:
    """schemas.CANDIDATES of one site from the columns of its rows, ordered by feature, rank (nulls last), concept.

    What rows of looks and places do not have is null, or 0 where the schema has no null.
    """
    total = [len(rows["feature"]) for rows in columns]
    added: dict[str, NDArray] = {}
    for field in CANDIDATES:
        if field.name in decided:
            added[field.name] = decided[field.name]
        else:
            blank = np.zeros if not field.nullable else _blank
            added[field.name] = np.concatenate(
                [rows[field.name] if field.name in rows else blank(n) for rows, n in zip(columns, total, strict=True)]
            )
    order = np.lexsort((added["kind"].astype(str), added["concept"].astype(str), added["rank"], added["feature"]))
    return pa.Table.from_arrays([_array(added[f.name][order], f) for f in CANDIDATES], schema=CANDIDATES)


def columns_of(table: pa.Table) -> dict[str, NDArray]:
    """A table as arrays by name: text as objects, numbers with NaN for null, truth values as they are."""
    added: dict[str, NDArray] = {}
    for field in table.schema:
        values = table[field.name]
        if pa.types.is_string(field.type):
            added[field.name] = np.array(values.to_pylist(), object)
        elif field.nullable:
            added[field.name] = values.to_numpy().astype(np.float64)
        else:
            added[field.name] = values.to_numpy()
    return added


def _blank(count: int) -> Floats:
    return np.full(count, np.nan)


def _array(values: NDArray, field: pa.Field) -> pa.Array:
    """Values as the field's type, NaN as null."""
    if pa.types.is_string(field.type):
        return pa.array(values.tolist(), field.type)
    if not field.nullable:
        return pa.array(values).cast(field.type)
    undefined = np.isnan(values.astype(np.float64))
    return pa.array(np.where(undefined, 0, values), mask=undefined).cast(field.type)

"""How alike the words of a feature's dictionary are, and how unlike those of two features (arXiv 2504.15473, Table 3).

A feature's dictionary is the published one: every concept that it hit at least once, as a set, or with as many
repetitions as hits; the paper does not say which. Its centre is the mean word vector. *Cohesion* is the mean cosine of
the words to the centre; *separability*, as the paper calls it, the cosine between the centres of two features, so that
less is better. A dictionary of one word has cohesion 1 whatever the word; therefore cohesion is also given over those
with several. What chance would give: as many words to every feature, drawn by how often the site's dictionaries have
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import SITE_COLUMNS, Port
from gazetteer.data.core.terminal import print_table
from gazetteer.data.runs.folder import open_finished
from gazetteer.labeling.tables import load_candidates
from gazetteer.labeling.vocabulary.word_vectors import word_vectors

Floats = NDArray[np.float64]

DRAWS = 200
"""Dictionaries drawn at random for each site."""

MEASURES = ("cohesion", "cohesion_several", "separability")


def dictionary_quality(run: str | Path, vectors: str, pipe: Any = None, seed: int = 0) -> dict[str, Any]:
    """Measure the published dictionaries of a finished run.

    Args:
        vectors: the word vectors (`word_vectors`); words that they lack are left out of the dictionaries.
        pipe: the pipeline, for the source ``model``.

    Returns:
        ``vectors``, the ``unknown`` words, and ``sites``: by block, branch and t what `site_quality` gives.

    Raises:
        InputError: the run is not finished, or the source of the vectors is wrong or knows none of the words.
    """
    hits = load_candidates(run, paper_label=True, columns=[*SITE_COLUMNS, "feature", "concept", "hits"]).to_pylist()
    words = sorted({row["concept"] for row in hits})
    table = word_vectors(vectors, words, pipe) if words else np.zeros((0, 1))
    known = np.linalg.norm(table, axis=1) > 0
    column = {word: i for i, word in enumerate(np.array(words)[known])}
    features = open_finished(run).read_final("features", list(SITE_COLUMNS))
    distinct = features.group_by(list(SITE_COLUMNS)).aggregate([]).to_pylist()
    sites = []
    for site in sorted(
        distinct, key=lambda row: (row["branch"], row["block"], row["stream"], row["signal"], -row["t"])
    ):
        own = [
            row for row in hits if all(row[name] == site[name] for name in SITE_COLUMNS) and row["concept"] in column
        ]
        rows = {feature: i for i, feature in enumerate(dict.fromkeys(row["feature"] for row in own))}
        counts = np.zeros((len(rows), len(column)))
        for row in own:
            counts[rows[row["feature"]], column[row["concept"]]] = row["hits"]
        sites.append({**site, "t": round(site["t"], 4), **site_quality(counts, table[known], seed)})
    return {"vectors": vectors, "unknown": [w for w, known_word in zip(words, known, strict=True) if not known_word],
            "draws": DRAWS, "sites": sites}  # fmt: skip


def site_quality(counts: Floats, vectors: Floats, seed: int = 0) -> dict[str, Any]:
    """The measures of one site.

    Args:
        counts: [features, words] hits; every feature has at least one.
        vectors: [words, d], none of them zero.

    Returns:
        ``features``, ``several`` (of them with two words or more), ``pairs`` of features; of the dictionaries as sets
        `MEASURES`, [mean, standard deviation] over features or pairs, and ``chance``: the same means, [mean, low, high]
        with the central 95 % of `DRAWS` drawings. ``repeated``: measures and chance with words counted by hits. None
        stands for what there is nothing to measure of.
    """
    sizes = (counts > 0).sum(axis=1)
    several, features = sizes > 1, len(counts)
    used = np.flatnonzero(counts.any(axis=0))
    counts, vectors = counts[:, used], vectors[used]
    rng = np.random.default_rng(seed)
    drawn = [_drawn(counts, rng) for _ in range(DRAWS if features else 0)]

    def measured(weigh: Any) -> dict[str, Any]:
        real = _measure(weigh(counts), vectors, several)
        by_chance = [_measure(weigh(order), vectors, several) for order in drawn]
        chance = {name: _range([measures[name][0] for measures in by_chance]) for name in MEASURES}
        return {**{name: _rounded(real[name]) for name in MEASURES}, "chance": chance}

    return {
        "features": features, "several": int(several.sum()), "pairs": features * (features - 1) // 2,
        **measured(lambda strength: (strength > 0).astype(np.float64)), "repeated": measured(lambda strength: strength),
    }  # fmt: skip


def cohesions(weights: Floats, vectors: Floats) -> Floats:
    """Mean cosine of each feature's words to its centre: float64 [features]; 0 where the centre is zero."""
    fraction = weights / weights.sum(axis=1, keepdims=True)
    # The mean of the cosines with one centre is the centre's product with the mean of the unit vectors.
    overlaps: Floats = ((fraction @ _units(vectors)) * _units(fraction @ vectors)).sum(axis=1)
    return overlaps


def _measure(weights: Floats, vectors: Floats, several: NDArray[np.bool_]) -> dict[str, list[float | None]]:
    alike = cohesions(weights, vectors)
    return {
        "cohesion": _spread(alike),
        "cohesion_several": _spread(alike[several]),
        "separability": _between(_units(weights @ vectors)),
    }


def _between(centres: Floats) -> list[float | None]:
    """Mean and standard deviation of the cosines of all pairs of unit vectors, without a matrix of all pairs."""
    pairs = len(centres) * (len(centres) - 1)
    if not pairs:
        return [None, None]
    own = (centres**2).sum(axis=1)
    mean = ((centres.sum(axis=0) ** 2).sum() - own.sum()) / pairs
    square = (((centres.T @ centres) ** 2).sum() - (own**2).sum()) / pairs
    return [float(mean), float(np.sqrt(max(0.0, square - mean**2)))]


def _drawn(counts: Floats, rng: np.random.Generator) -> Floats:
    """Other words for every feature, as many and with the same counts, by how many features have them."""
    frequency = (counts > 0).sum(axis=0)
    # The largest of log frequency + Gumbel noise are drawn without replacement (Kool et al. 2019).
    order = np.argsort(-(np.log(frequency) + rng.gumbel(size=counts.shape)), axis=1)
    made = np.zeros_like(counts)
    np.put_along_axis(made, order, -np.sort(-counts, axis=1), axis=1)
    return made


def _units(vectors: Floats) -> Floats:
    """Each row at length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)


def _spread(values: Floats) -> list[float | None]:
    return [float(values.mean()), float(values.std())] if len(values) else [None, None]


def _range(values: list[float | None]) -> list[float | None]:
    defined = [value for value in values if value is not None]
    return _rounded([np.mean(defined), *np.percentile(defined, [2.5, 97.5])]) if defined else [None] * 3


def _rounded(values: Any) -> list[float | None]:
    return [None if value is None else round(float(value), 4) for value in values]


def print_dictionaries(result: Mapping[str, Any]) -> None:
    """The measures of the dictionaries as sets, as text."""
    print(f"published dictionaries, word vectors {result['vectors']}: mean ± sd (by chance)")
    headings = ("cohesion", "of several words", "cosine between centres")
    print_table(
        {"block": "", "branch": "", "t": ".2f", "features": "d", **dict.fromkeys(headings, ">")},
        (
            (Port(site["block"], site["stream"], site["signal"]), site["branch"], site["t"], site["features"],
             *(_shown(site[name], site["chance"][name]) for name in MEASURES))
            for site in result["sites"]
        ),
    )  # fmt: skip
    if result["unknown"]:
        print(f"without a vector: {', '.join(result['unknown'])}")


def _shown(value: list[float | None], chance: list[float | None]) -> str:
    return "none" if value[0] is None else f"{value[0]:.3f} ± {value[1]:.3f} ({chance[0]:.3f})"

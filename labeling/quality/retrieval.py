"""How well single features find the cells of a concept: the measures of saev (arXiv 2511.17735), on a run's own masks.

A cell shows a concept when the concept's union covers at least half of it. Cells are ranked by a feature's activation,
all silent ones last and tied. For each concept the feature with the highest average precision on *discovery* pictures
is taken, and on *held-out* pictures

    mAP         the mean over concepts of its average precision
    purity@16   the mean over concepts of the share of its 16 most active cells that show the concept
    coverage    the share of concepts whose average precision is at least .3

A picture that was not asked for a concept says nothing of it: its cells count for that concept neither way, and
neither do the cells of given pictures of which nobody decided what they show, as far as anything fires in them.

saev reports .319, .808 and .450 on ADE20K's human masks with DINOv3-L; its cells are patches of a vision model, so the
figures stand beside these, not against them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.pooling import cell_areas
from gazetteer.labeling.evidence.site_codes import SiteCodes

Floats = NDArray[np.float64]
TOP = 16
COVERED = 0.3


def retrieval(codes: SiteCodes, maps: ConceptMaps) -> dict[str, Any]:
    """The measures of one site.

    Returns:
        ``map``, ``purity_at_16`` and ``coverage`` over the ``concepts`` that both splits show (None without any).
    """
    learnt, base = average_precisions(codes, maps, "discovery")
    held, held_base = average_precisions(codes, maps, "heldout")
    shown = np.flatnonzero((base > 0) & (held_base > 0))
    if not len(shown) or not len(learnt):
        return {"concepts": len(shown), "map": None, "purity_at_16": None, "coverage": None}
    chosen = learnt[:, shown].argmax(axis=0)
    truth = held[chosen, shown]
    purity = top_purity(codes, maps, chosen, shown, "heldout")
    purity = np.where(np.isnan(purity), held_base[shown], purity)  # of a silent one any cells are the most active
    return {
        "concepts": len(shown), "map": round(float(truth.mean()), 4),
        "purity_at_16": round(float(purity.mean()), 4),
        "coverage": round(float((truth >= COVERED).mean()), 4),
    }  # fmt: skip


def average_precisions(codes: SiteCodes, maps: ConceptMaps, split: str) -> tuple[Floats, Floats]:
    """Average precision of every feature and concept over the cells of a split, and each concept's share of cells.

    Returns:
        float64 [features up to the largest that fires anywhere, C] and [C]; silent cells are one tie at the end.
    """
    undecided, codes = codes.undecided(), codes.judged()
    owner, slots = _slots(codes, maps, split)
    truth = _shown(codes, maps, split)
    here = _here(codes, maps, split)
    asked = maps.asked & here[:, None]
    known = np.where(here, codes.cells, 0)
    if len(undecided.cell):
        place = image_places(undecided, maps)[undecided.image] * codes.cells + undecided.cell
        known = known - np.bincount(np.unique(place) // codes.cells, minlength=len(known)) * here  # none shows by half
    total = np.bincount(truth[1], minlength=len(maps.concepts)).astype(np.float64)
    features = int(codes.feature.max(initial=-1)) + 1
    base = total / np.maximum(known @ asked, 1)
    precision = np.zeros((features, len(maps.concepts)))
    order = slots[np.lexsort((-codes.value[slots], codes.feature[slots]))]
    feature, value = codes.feature[order], codes.value[order]
    first = np.flatnonzero(np.diff(feature, prepend=-1))
    begun = np.repeat(first, np.diff(np.append(first, len(order))))
    last = np.diff(feature, append=-1) != 0
    ends = np.flatnonzero(last | (np.diff(value, append=-1) != 0))  # of ties, which are one step
    fresh = np.concatenate(([True], last[ends[:-1]])) if len(ends) else np.zeros(0, np.bool_)
    cell = owner[order] * codes.cells + codes.cell[order]
    for concept in np.flatnonzero(total):
        shows = np.zeros(len(maps.image_ids) * codes.cells, np.bool_)
        shows[truth[0][truth[1] == concept]] = True
        hits, told = (
            running[ends + 1] - running[begun[ends]]
            for running in map(_running, (shows[cell], asked[owner[order], concept]))
        )
        gained = np.where(fresh, hits, np.diff(hits, prepend=0.0))
        precisions = np.bincount(feature[ends], gained * hits / np.maximum(told, 1), features) / total[concept]
        recall = np.zeros(features)
        recall[feature[ends[last[ends]]]] = hits[last[ends]] / total[concept]
        precision[:, concept] = precisions + (1 - recall) * base[concept]
    return precision, base


def _running(counted: NDArray[np.bool_]) -> Floats:
    """How many of the first 0, 1, 2, … are counted."""
    return np.concatenate(([0.0], np.cumsum(counted)))


def top_purity(
    codes: SiteCodes, maps: ConceptMaps, feature: NDArray[np.int64], concept: NDArray[np.int64], split: str
) -> Floats:
    """Share of each feature's 16 most active cells (or all, if fewer) that show its concept; NaN for a silent one."""
    codes = codes.judged()
    owner, slots = _slots(codes, maps, split)
    truth = _shown(codes, maps, split)
    entropies = np.full(len(feature), np.nan)
    for number, (own_feature, name) in enumerate(zip(feature, concept, strict=True)):
        own = slots[(codes.feature[slots] == own_feature) & maps.asked[owner[slots], name]]
        best = own[np.argsort(-codes.value[own], kind="stable")[:TOP]]
        if len(best):
            shows = truth[0][truth[1] == name]
            entropies[number] = np.isin(owner[best] * codes.cells + codes.cell[best], shows).mean()
    return entropies


def _slots(codes: SiteCodes, maps: ConceptMaps, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The image of every slot, and the slots of a split."""
    owner = image_places(codes, maps)[codes.image] if len(codes.image) else np.zeros(0, np.int64)
    return owner, np.flatnonzero(maps.splits[owner] == split)


def _here(codes: SiteCodes, maps: ConceptMaps, split: str) -> NDArray[np.bool_]:
    """Which pictures are of a split and have codes: bool [I]."""
    here = np.zeros(len(maps.image_ids), np.bool_)
    here[image_places(codes, maps)] = True
    return here & (maps.splits == split)


def _shown(codes: SiteCodes, maps: ConceptMaps, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(image * cells + cell, concept) of every cell of a split that a concept covers by half."""
    grid = (codes.height, codes.width)
    of = np.flatnonzero(_here(codes, maps, split)[maps.union_image])
    sizes, which = np.unique(maps.sizes, axis=0, return_inverse=True)
    areas = np.stack([cell_areas((int(h), int(w)), grid) for h, w in sizes])[which.ravel()]
    union, cell = np.nonzero(2 * maps.pixels[grid][of] >= np.maximum(areas[maps.union_image[of]], 1))
    return maps.union_image[of][union] * codes.cells + cell, maps.union_concept[of][union]

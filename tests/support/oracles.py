"""Slow, literal versions of what the labelling code computes cleverly: maps upsampled, pixels compared."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.evidence.counts import ImageEvidenceInput
from gazetteer.labeling.evidence.site_codes import same_site

Key = tuple[str, str, float, str, int | None, str | None]


def upsample(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest upsampling, pixel by pixel."""
    (h, w), (height, width) = grid.shape, size
    out = np.empty(size, grid.dtype)
    for y in range(height):
        for x in range(width):
            out[y, x] = grid[y * h // height, x * w // width]
    return out


def dense_map(code: SparseMap, feature: int) -> np.ndarray:
    """One feature's activations [h, w]."""
    out = np.zeros(code.height * code.width)
    for slot, (number, value) in enumerate(zip(code.feature, code.value, strict=True)):
        if number == feature and value > 0:
            out[slot // code.k] += float(value)
    return out.reshape(code.height, code.width)


def binarize(grid: np.ndarray, threshold: float) -> np.ndarray:
    low, high = grid.min(), grid.max()
    if high == low:
        return np.zeros(grid.shape, bool)
    return (grid - low) / (high - low) > threshold


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def literal_evidence(
    images: list[ImageEvidenceInput], base: tuple[str, ...] = (), config: EvidenceConfig = EvidenceConfig()
) -> dict[Key, dict[str, object]]:
    """{(block, branch, t, split, feature, concept): counts} straight from the definitions."""
    rows: dict[Key, dict[str, object]] = defaultdict(
        lambda: {
            "images": 0,
            "images_asked": 0,
            "hits": 0,
            "iou_micro": 0,
            "intersection": 0,
            "area": 0,
            "cells": None,
        }
    )
    for image in images:
        unions: dict[str, np.ndarray] = {}
        for concept, mask in image.segments:
            unions[concept] = unions.get(concept, np.zeros(image.size, bool)) | mask
        asked = set(image.asked) | set(unions)
        for site, code in image.codes.items():
            _add_image(rows, image, same_site(site), code, unions, asked, base, config)
    return dict(rows)


def _add_cells(row: dict[str, object], counts: list[int]) -> None:
    old = row["cells"] or [0] * len(counts)
    row["cells"] = [a + b for a, b in zip(old, counts, strict=True)]  # type: ignore[call-overload]


def _add_image(rows, image, site: Site, code, unions, asked, base, config) -> None:  # type: ignore[no-untyped-def]
    key = (site.block, site.branch, site.t, image.split)
    cells = np.arange(code.height * code.width).reshape(code.height, code.width)
    cell_of_pixel = upsample(cells, image.size)
    rows[(*key, None, None)]["images"] += 1
    for concept in asked:
        row = rows[(*key, None, concept)]
        union = unions.get(concept, np.zeros(image.size, bool))
        row["images_asked"] += 1
        row["images"] += concept in unions
        row["area"] += int(union.sum())
        _add_cells(row, [int((union & (cell_of_pixel == c)).sum()) for c in cells.ravel()])
    for feature in sorted({int(f) for f, v in zip(code.feature, code.value, strict=True) if v > 0}):
        grid = dense_map(code, feature)
        support = upsample(grid > 0, image.size)
        binary = upsample(binarize(grid, config.binarize), image.size)
        row = rows[(*key, feature, None)]
        row["images"] += 1
        row["area"] += int(support.sum())
        _add_cells(row, [int(v > 0) for v in grid.ravel()])
        for concept in asked:
            if concept in base and concept not in unions:
                continue
            row = rows[(*key, feature, concept)]
            if concept not in base:
                row["images_asked"] += 1
                row["area"] += int(support.sum())
            if concept in unions:
                best = max(iou(binary, mask) for name, mask in image.segments if name == concept)
                row["images"] += 1
                row["hits"] += best > config.hit_iou
                row["iou_micro"] += round(1e6 * best)
                row["intersection"] += int((support & unions[concept]).sum())

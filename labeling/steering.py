"""Concepts become features to steer with: the labels of a run say which, its codes how strong they are.

edits = resolve(read_edits("edits.yaml"), "runs/scenes")
with steer(pipe, edits, "saes"):
    ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.edits import Edit, Target
from data.errors import InputError
from data.sites import Site
from data.store import RunFolder
from labeling.run_codes import site_codes
from labeling.site_codes import SiteCodes, site_of
from labeling.tables import Run, load_images, load_labels

MIN_PICTURES = 5
"""A word must stand in so many discovery prompts, and be missing from as many, before features are sought for it."""


def resolve(edits: Sequence[Edit], run: Run, top: int = 0) -> tuple[Edit, ...]:
    """The edits with targets: in each block the site of the edit's branch whose t is nearest to its window's middle.

    A concept's features are those with it as their best trusted label (or, where there are none, as any trusted label),
    by `dataset_iou` − `null_iou`; P1 takes every feature in whose word list the concept stands. A word's features are
    those that are more active where the prompt has the word (`word_features`). Edits with targets stay as they are.

    Args:
        top: at most so many features a block; 0: all of a concept's, 8 of a word's.

    Raises:
        InputError: not a finished run, or nothing there carries the concept or word at the wanted sites.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    return tuple(edit if edit.targets else _resolved(edit, folder, top) for edit in edits)


def sites_for(edit: Edit, run: RunFolder) -> list[Site]:
    """One site a block: the edit's branch (cond for ``both``), t nearest to the middle of its window."""
    sites = run_sites(run)
    branch = "uncond" if edit.branch == "uncond" else "cond"
    middle = sum(edit.window) / 2
    blocks = list(edit.blocks) or sorted({site.block for site in sites})
    unknown = sorted(set(blocks) - {site.block for site in sites})
    if unknown:
        raise InputError(f"{run.path} has no labels for the block {unknown[0]}; it has {', '.join(_blocks(sites))}.")
    chosen = []
    for block in blocks:
        near = [site for site in sites if (site.block, site.branch) == (block, branch)]
        if near:
            chosen.append(min(near, key=lambda site: (abs(site.t - middle), -site.t)))
    return chosen


def run_sites(run: RunFolder) -> list[Site]:
    """Every site of a finished run, sorted."""
    rows = run.read_final("features", ["block", "branch", "t"])
    return sorted({site_of(**row) for row in rows.group_by(["block", "branch", "t"]).aggregate([]).to_pylist()})


def concept_features(run: RunFolder, site: Site, concept: str, top: int = 0) -> tuple[int, ...]:
    """The features of a site that a concept labels, best first; may be empty."""
    columns = ["feature", "rank", "dataset_iou", "null_iou"]
    rows = load_labels(
        run, block=site.block, branch=site.branch, t=site.t, concept=concept, columns=columns
    ).to_pylist()
    rows = [row for row in rows if row["rank"] == 1] or rows
    rows.sort(key=lambda row: (row["null_iou"] - row["dataset_iou"], row["feature"]))
    return tuple(row["feature"] for row in rows[: top or None])


def word_features(run: RunFolder, site: Site, word: str, top: int = 8) -> tuple[int, ...]:
    """The features whose mean activation over a picture tells best, by Cohen's d, that its prompt has the word.

    Discovery pictures only; may be empty.

    Raises:
        InputError: the word stands in too few prompts, or in too many.
    """
    images = load_images(run, split="discovery", columns=["image_id", "prompt"])
    codes = site_codes(run, site)
    place = {image_id: i for i, image_id in enumerate(codes.image_ids)}
    rows = [
        (place[row["image_id"]], names(row["prompt"], word)) for row in images.to_pylist() if row["image_id"] in place
    ]
    index, has = np.array([row[0] for row in rows], int), np.array([row[1] for row in rows], bool)
    if min(has.sum(), (~has).sum()) < MIN_PICTURES:
        raise InputError(
            f"{word!r} stands in {has.sum()} of {len(has)} discovery prompts of {run.path}; "
            f"at least {MIN_PICTURES} must have it, and as many not."
        )
    used = np.unique(codes.feature)
    means = np.zeros((len(codes.image_ids), len(used)))
    np.add.at(means, (codes.image, np.searchsorted(used, codes.feature)), codes.value / codes.cells)
    with_word, without = means[index[has]], means[index[~has]]
    spread = np.sqrt((with_word.var(axis=0) + without.var(axis=0)) / 2)
    d = (with_word.mean(axis=0) - without.mean(axis=0)) / np.maximum(spread, 1e-9)
    best = np.argsort(-d, kind="stable")[:top]
    return tuple(int(used[i]) for i in best if d[i] > 0)


def names(prompt: str, word: str) -> bool:
    """Whether a prompt holds a word or phrase as it stands."""
    return re.search(rf"\b{re.escape(word.lower())}\b", prompt.lower()) is not None


def percentiles(codes: SiteCodes, features: Sequence[int], share: float = 99.0) -> tuple[float, ...]:
    """Each feature's percentile over the cells where it fires; 0 for one that never does."""
    found: list[float] = []
    for feature in features:
        values: NDArray[np.float32] = codes.value[codes.feature == feature]
        found.append(float(np.percentile(values, share)) if values.size else 0.0)
    return tuple(found)


def _resolved(edit: Edit, run: RunFolder, top: int) -> Edit:
    targets = []
    for site in sites_for(edit, run):
        features = (
            concept_features(run, site, edit.concept, top)
            if edit.concept
            else word_features(run, site, edit.word, top or 8)
        )
        if features:
            scales = percentiles(site_codes(run, site), features) if edit.unit == "feature_p99" else ()
            targets.append(Target(site.block, site.branch, site.t, features, scales))
    if not targets:
        where = ", ".join(site.slug for site in sites_for(edit, run)) or "any site"
        raise InputError(f"No feature of {run.path} carries {edit.name!r} at {where}.")
    return edit.with_targets(targets)


def _blocks(sites: Sequence[Site]) -> list[str]:
    return sorted({site.block for site in sites})

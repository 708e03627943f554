"""Concepts become features to steer with: the labels of a run say which, its codes how strong they are.

edits = resolve(read_edits("edits.yaml"), "runs/scenes")
with steer(pipe, edits, "saes"):
    ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE, SITE_COLUMNS, Site
from gazetteer.data.inputs.edits import CONTRAST_UNHEARD, UNWEIGHTED, Edit, Target
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.evidence.site_codes import SiteCodes, site_of
from gazetteer.labeling.interventions.contrast import Weights, concept_contrasts, picture_means, word_contrast
from gazetteer.labeling.layout.run import LayoutRun, open_run
from gazetteer.labeling.questions import meant_of_run
from gazetteer.labeling.tables import Run, load_candidates, load_images, load_labels
from gazetteer.labeling.vocabulary.words import parts, stand_in, words

MIN_PICTURES = 5
"""A word must stand in so many discovery prompts, and be missing from as many, before features are sought for it."""


WRITTEN = ("update", "output")
"""Signals that edits act on, in the order in which one of a block is taken."""


class NotCarriedError(InputError):
    """No feature carries a concept at the sites of an edit."""


def resolve(edits: Sequence[Edit], run: Run, top: int = 0) -> tuple[Edit, ...]:
    """The edits with targets; edits that have some stay as they are (`Resolver.resolve`).

    Raises:
        InputError: not a finished run, or nothing there carries the concept or word at the wanted sites.
    """
    resolver = Resolver(run)
    return tuple(resolver.resolve(edit, top) for edit in edits)


class Resolver:
    """What a run says concepts and words are made of; read once, asked many times."""

    def __init__(self, run: Run) -> None:
        self.folder = open_finished(run)
        self._codes: dict[Site, SiteCodes] = {}
        self._contrasts: dict[Site, dict[str, Weights]] = {}

    @cached_property
    def prompts(self) -> dict[str, str]:
        """By image id, of the discovery pictures."""
        rows = load_images(self.folder, split="discovery", columns=["image_id", "prompt"]).to_pylist()
        return {row["image_id"]: row["prompt"] for row in rows}

    @cached_property
    def layout(self) -> LayoutRun:
        """The run's pictures with their masks."""
        return open_run(self.folder)

    def codes(self, site: Site) -> SiteCodes:
        """The run's codes at a site."""
        if site not in self._codes:
            self._codes[site] = site_codes(self.folder, site)
        return self._codes[site]

    def resolve(self, edit: Edit, top: int = 0) -> Edit:
        """The edit with targets: in each block and stream one site of the edit's branch (`sites_for`).

        With the choice ``labels`` a concept's features are those with it as their best trusted label (or, where there
        are none, as any trusted label), by `dataset_iou` − `null_iou`, and count alike: at unit length by the unit
        ``update_norm``, as their vectors stand by the others, whose amounts go with those. With ``dictionary`` they are
        those of P1 (3.5): every feature in whose word list the concept stands, by one hit or more. A word's are those
        that tell best by their mean activation that a prompt has the word (`word_features`). With ``contrast`` all
        features count, by how much more they fire in the concept's cells, or in the word's pictures
        (labeling/interventions/contrast.py).

        Args:
            top: at most so many features a block; 0: all of them, with ``labels`` 8 of a word's.

        Raises:
            NotCarriedError: nothing carries the concept or word at the wanted sites.
            InputError: as `resolve`.
        """
        if edit.targets:
            return edit
        if edit.concept:
            edit = replace(edit, concept=meant_of_run(self.folder, [edit.concept])[0])
        if edit.choice == "contrast" and edit.unit in UNWEIGHTED and not top:
            raise InputError(
                f"The edit of {edit.name!r}: {CONTRAST_UNHEARD}; set choice to labels, or unit to update_norm."
            )
        targets = []
        for site in sites_for(edit, self.folder):
            features, scales = self._features(edit, site, top)
            if features:
                if edit.unit == "feature_p99":
                    scales = percentiles(self.codes(site), features)
                targets.append(Target(**site.columns(), features=features, scales=scales))
        if not targets:
            where = ", ".join(site.slug for site in sites_for(edit, self.folder)) or "any site"
            raise NotCarriedError(f"No feature of {self.folder.path} carries {edit.name!r} at {where}.")
        return edit.with_targets(targets)

    def _features(self, edit: Edit, site: Site, top: int) -> Weights:
        if edit.choice == "dictionary":
            return dictionary_features(self.folder, site, edit.concept, top), ()
        if edit.concept and edit.choice == "labels":
            return concept_features(self.folder, site, edit.concept, top), ()
        if edit.concept:
            if site not in self._contrasts:
                self._contrasts[site] = concept_contrasts(self.layout, site)
            features, weights = self._contrasts[site].get(edit.concept, ((), ()))
            return features[: top or None], weights[: top or None]
        index, has = self._pictures(site, edit.word)
        if edit.choice == "labels":
            return word_features(self.codes(site), index, has, top or 8), ()
        features, weights = word_contrast(self.codes(site), index, has)
        return features[: top or None], weights[: top or None]

    def _pictures(self, site: Site, word: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The discovery pictures as the codes count them, and whether their prompts have the word."""
        known = [i for i, image_id in enumerate(self.codes(site).image_ids) if image_id in self.prompts]
        prompts = [self.prompts[self.codes(site).image_ids[i]] for i in known]
        has = np.array([names(prompt, word) for prompt in prompts], bool)
        if min(has.sum(), (~has).sum()) < MIN_PICTURES:
            raise InputError(
                f"{word!r} stands in {has.sum()} of {len(has)} discovery prompts of {self.folder.path}; "
                f"at least {MIN_PICTURES} must have it, and as many not."
            )
        return np.array(known, np.int64), has


def idle_blocks(edit: Edit) -> tuple[str, ...]:
    """Blocks that a resolved edit names and does not act in, for no feature there carries its concept or word."""
    acting = {target.block for target in edit.targets}
    return tuple(block for block in edit.blocks if block not in acting)


def sites_for(edit: Edit, run: RunFolder) -> list[Site]:
    """One site a block and stream: the edit's branch (cond for ``both``), its t or else that nearest to its window's
    middle; of what the block writes, the update where that is heard, or else the output: one change, made once.

    Of a concept, and where the edit has a region, those of the image stream: words lie nowhere in the picture. So where
    it acts on both branches, which hold other words.

    Raises:
        InputError: an unknown block, a run without an image stream where it takes one, or of inputs alone.
    """
    sites = [site for site in run_sites(run) if site.signal in WRITTEN]
    if not sites:
        raise InputError(f"{run.path} hears what blocks are given; edits act on what they write (update, output).")
    if edit.concept or not edit.region.everywhere or edit.branch == "both":
        sites = [site for site in sites if site.stream == IMAGE]
        if not sites:
            why = "could be placed" if edit.branch != "both" else "could act on both branches"
            raise InputError(f"{run.path} listens to no image stream, where {edit.name!r} {why}.")
    branch = "uncond" if edit.branch == "uncond" else "cond"
    middle = sum(edit.window) / 2 if edit.t is None else edit.t
    blocks = list(edit.blocks) or sorted({site.block for site in sites})
    unknown = sorted(set(blocks) - {site.block for site in sites})
    if unknown:
        raise InputError(f"{run.path} has no labels for the block {unknown[0]}; it has {', '.join(_blocks(sites))}.")
    chosen = []
    for block in blocks:
        near = [site for site in sites if (site.block, site.branch) == (block, branch)]
        for stream in sorted({site.stream for site in near}):
            own = [site for site in near if site.stream == stream]
            chosen.append(min(own, key=lambda site: (WRITTEN.index(site.signal), abs(site.t - middle), -site.t)))
    return chosen


def run_sites(run: RunFolder) -> list[Site]:
    """Every site of a finished run, sorted."""
    rows = run.read_final("features", list(SITE_COLUMNS)).group_by(list(SITE_COLUMNS)).aggregate([])
    return sorted({site_of(**row) for row in rows.to_pylist()})


def concept_features(run: RunFolder, site: Site, concept: str, top: int = 0) -> tuple[int, ...]:
    """The features of a site that a concept labels as a thing, stuff or part, best first; may be empty."""
    columns = ["feature", "rank", "dataset_iou", "null_iou"]
    rows = load_labels(run, **site.columns(), concept=concept, kind=SPATIAL_KINDS, columns=columns).to_pylist()
    rows = [row for row in rows if row["rank"] == 1] or rows
    rows.sort(key=lambda row: (row["null_iou"] - row["dataset_iou"], row["feature"]))
    return tuple(row["feature"] for row in rows[: top or None])


def dictionary_features(run: RunFolder, site: Site, concept: str, top: int = 0) -> tuple[int, ...]:
    """The features of a site in whose dictionary a concept stands (P1 3.3: a hit or more), most hits first."""
    rows = load_candidates(
        run, **site.columns(), concept=concept, paper_label=True,
        columns=["feature", "hits"],
    ).to_pylist()  # fmt: skip
    rows.sort(key=lambda row: (-row["hits"], row["feature"]))
    return tuple(row["feature"] for row in rows[: top or None])


def word_features(codes: SiteCodes, index: NDArray[np.int64], has: NDArray[np.bool_], top: int = 8) -> tuple[int, ...]:
    """The features whose mean activation over a picture tells best, by Cohen's d, that its prompt has the word.

    Args: as `gazetteer.labeling.interventions.contrast.word_contrast`. May be empty.
    """
    used, means = picture_means(codes)
    with_word, without = means[index[has]], means[index[~has]]
    spread = np.sqrt((with_word.var(axis=0) + without.var(axis=0)) / 2)
    d = (with_word.mean(axis=0) - without.mean(axis=0)) / np.maximum(spread, 1e-9)
    best = np.argsort(-d, kind="stable")[:top]
    return tuple(int(used[i]) for i in best if d[i] > 0)


def names(prompt: str, word: str) -> bool:
    """Whether a prompt holds a word or phrase, in this number; hyphens and spaces count alike, and so does 's."""
    return stand_in(parts(words(word)), parts(words(prompt)))


def percentiles(codes: SiteCodes, features: Sequence[int], percentile: float = 99.0) -> tuple[float, ...]:
    """Each feature's percentile over the cells where it fires; 0 for one that never does."""
    strengths: list[float] = []
    for feature in features:
        values: NDArray[np.float32] = codes.value[codes.feature == feature]
        strengths.append(float(np.percentile(values, percentile)) if values.size else 0.0)
    return tuple(strengths)


def _blocks(sites: Sequence[Site]) -> list[str]:
    return sorted({site.block for site in sites})

"""What a causal pass works on: the features of a run that are tried, their pictures, and what is watched in those."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, TEXT, Site
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.layout import check_config
from gazetteer.labeling.evidence.site_codes import SiteCodes, site_of_row
from gazetteer.labeling.interventions.able import can_show
from gazetteer.labeling.interventions.causal import SharedPicture, Switch
from gazetteer.labeling.interventions.resolve import WRITTEN, percentiles, run_sites
from gazetteer.labeling.tables import load_features, load_images, load_labels, load_segments
from gazetteer.labeling.vocabulary.concepts import Vocabulary

OFTEN = 0.25
"""An unlabelled feature is tried when it fires in at least this share of the pictures."""

LABELLED_OF = 4
"""Features are taken in turns of so many, `CausalConfig.unlabelled` of them without a label."""

CENTRES = 16
"""Cells a feature that is switched in cells may stand in."""

TUNING_OF = 4
"""One labelled feature of so many is a tuning feature."""

LABEL_COLUMNS = [*SITE_COLUMNS, "feature", "concept"]


def finished_run(config: RunConfig, run: str) -> RunFolder:
    """The run, held to its configuration; InputError when it is not finished or of another one."""
    folder = open_finished(run)
    check_config(config, folder)
    return folder


def named_sites(folder: RunFolder, slugs: Sequence[str]) -> list[Site]:
    """The sites of a run with these slugs, all of the image stream without any.

    Raises:
        InputError: an unknown site, one of the text stream, whose features lie nowhere in a picture, or one of what
            a block is given, which no edit changes.
    """
    every = {site.slug: site for site in run_sites(folder)}
    text = {slug: site for slug, site in every.items() if site.stream == TEXT}
    given = {slug: site for slug, site in every.items() if site.stream != TEXT and site.signal not in WRITTEN}
    known = {slug: site for slug, site in every.items() if slug not in text and slug not in given}
    for apart, what, why in (
        (text, "of the text stream", "causes are measured where features of the image stream lie"),
        (given, "of what a block is given", "causes are measured of what blocks write (update, output)"),
    ):
        wanted = [slug for slug in slugs or apart if slug in apart]
        if wanted and (slugs or not known):
            raise InputError(f"{wanted[0]} is {what}; {why}.")
        if wanted:
            print(f"causes: {len(wanted)} sites {what} are left out", file=sys.stderr, flush=True)
    unknown = [slug for slug in slugs if slug not in known]
    if unknown:
        raise InputError(f"{folder.path} has no site {unknown[0]}; it has {', '.join(sorted(known))}.")
    return [known[slug] for slug in dict.fromkeys(slugs)] or list(known.values())


def starts_of(folder: RunFolder, split: str) -> tuple[SharedPicture, ...]:
    """The pictures of a split, by id (ids are digests, so these are in no order); one of every prompt comes before
    the second of any, which is like it."""
    rows = load_images(folder, split=split, columns=["image_id", "prompt", "seed"]).to_pylist()
    rows.sort(key=lambda row: row["image_id"])
    before: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(before[row["prompt"]])
        before[row["prompt"]] += 1
    rows = [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]
    return tuple(SharedPicture(row["image_id"], row["prompt"], row["seed"]) for row in rows)


def pictures_able(folder: RunFolder, starts: Sequence[SharedPicture]) -> dict[str, tuple[int, ...]]:
    """By concept, the places of the pictures that can show it."""
    images = load_images(folder, columns=["image_id", "split"]).to_pylist()
    segments = load_segments(folder, columns=["image_id", "concept"])
    row = {image["image_id"]: i for i, image in enumerate(images)}
    concepts = sorted(set(segments["concept"].to_pylist()))
    shown = np.zeros((len(images), len(concepts)), bool)
    column = {name: i for i, name in enumerate(concepts)}
    for segment in segments.to_pylist():
        shown[row[segment["image_id"]], column[segment["concept"]]] = True
    able = can_show(shown, np.array([image["split"] == "discovery" for image in images], bool), concepts)
    place = np.array([row[start.image_id] for start in starts], np.int64)
    return {name: tuple(np.flatnonzero(able[place, i]).tolist()) for i, name in enumerate(concepts)}


def label_of(folder: RunFolder, site: Site) -> dict[int, str]:
    """The best label that says where of every feature of a site that has one, whatever else it is called first."""
    rows = load_labels(folder, **site.columns(), kind=SPATIAL_KINDS, columns=["feature", "concept", "rank"]).to_pylist()
    return {row["feature"]: row["concept"] for row in sorted(rows, key=lambda row: -row["rank"])}


def tuning_features(folder: RunFolder) -> list[tuple[Site, dict[str, Any]]]:
    """Every fourth labelled feature of the cond branch, drawn by digests: site and row of its best label.

    On them `--sweep` chooses how features are switched; `features_to_try` takes them last.
    """
    columns = [*LABEL_COLUMNS, "rank", "heldout_dataset_iou"]
    rows = load_labels(folder, branch="cond", kind=SPATIAL_KINDS, columns=columns).to_pylist()
    named = [(site_of_row(row), row) for row in rows if row["rank"] == 1 and row["signal"] in WRITTEN]
    named.sort(key=lambda pair: _drawn(pair[0], pair[1]["feature"]), reverse=True)
    return named[: -(-len(named) // TUNING_OF)]


def best_of_concepts(folder: RunFolder, most: int) -> list[tuple[Site, int, str]]:
    """The tuning feature that overlaps each concept best, best concepts first, at most so many; 0: all."""
    rows = tuning_features(folder)
    if not rows:
        raise InputError(f"{folder.path} labels no feature of the cond branch; there is nothing to tune on.")
    rows.sort(key=lambda pair: (-(pair[1]["heldout_dataset_iou"] or 0.0), pair[1]["feature"]))
    best: dict[str, tuple[Site, int]] = {}
    for site, row in rows:
        best.setdefault(row["concept"], (site, row["feature"]))
    return [(site, feature, concept) for concept, (site, feature) in list(best.items())[: most or None]]


def switch_of(codes: SiteCodes, feature: int) -> Switch:
    """A feature with its strength and the cells in which it fires most often."""
    (scale,) = percentiles(codes, (feature,))
    counts = np.bincount(codes.cell[codes.feature == feature], minlength=codes.cells)
    best = np.argsort(-counts, kind="stable")[:CENTRES]
    centres = [((c % codes.width + 0.5) / codes.width, (c // codes.width + 0.5) / codes.height)
               for c in best.tolist() if counts[c]]  # fmt: skip
    return Switch(codes.site, feature, scale, (), tuple(centres))


def asked_concepts(config: RunConfig, folder: RunFolder) -> tuple[str, ...]:
    """The concepts whose area and presence are watched, sorted: those listed, or else those that label a feature."""
    asked = (
        Vocabulary(config.vocabulary).concepts
        or load_labels(folder, kind=SPATIAL_KINDS, columns=["concept"])["concept"].to_pylist()
    )
    return tuple(sorted(set(asked)))


def features_to_try(folder: RunFolder, site: Site, unlabelled: int, pick: str = "best") -> list[int]:
    """Features of a site with a label that says where, in turns with `unlabelled` others a round that fire often.

    Args:
        pick: ``best`` takes the labelled ones by their IoU, ``sample`` in an order that digests draw at random. Tuning
            features come after all other labelled ones.
    """
    columns = ["feature", "images", "density", "labels", "best_dataset_iou"]
    rows = load_features(folder, **site.columns(), columns=columns).to_pylist()
    pictures = load_images(folder, columns=["image_id"]).num_rows
    spatial = set(load_labels(folder, **site.columns(), kind=SPATIAL_KINDS, columns=["feature"])["feature"].to_pylist())
    tuned_on = {row["feature"] for at, row in tuning_features(folder) if at == site}

    def order(row: dict[str, Any]) -> Any:
        drawn = _drawn(site, row["feature"]) if pick == "sample" else ""
        return row["feature"] in tuned_on, drawn, -(row["best_dataset_iou"] or 0.0), row["feature"]

    named = sorted((r for r in rows if r["feature"] in spatial), key=order)
    often = [r for r in rows if not r["labels"] and r["images"] >= OFTEN * pictures]
    silent = sorted(often, key=lambda r: (-r["density"], r["feature"]))
    return list(_turns([r["feature"] for r in named], [r["feature"] for r in silent], unlabelled))


def _drawn(site: Site, feature: int) -> str:
    """A place in an order that depends on nothing but the site's and the feature's name."""
    return digest_json([site.slug, feature])


def _turns(named: list[int], silent: list[int], unlabelled: int) -> Iterator[int]:
    while named or silent:
        for queue, count in ((named, LABELLED_OF - unlabelled), (silent, unlabelled)):
            # When one kind is used up the other goes on alone.
            take = count if named and silent else LABELLED_OF
            yield from queue[:take]
            del queue[:take]

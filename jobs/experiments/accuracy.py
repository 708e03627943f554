"""What `gazetteer quality` asks of the model: how often labels are right on pictures of which everything is known."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named
from gazetteer.data.core.sites import IMAGE, TEXT, Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.exact import ExactPicture
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.experiments.layout import check_config, load_saes
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.quality import thresholds
from gazetteer.labeling.quality.accuracy import (
    COLUMNS,
    accuracy_of,
    exact_looks,
    exact_maps,
    few_pictures,
    judged,
    named_as,
    shown_in,
)
from gazetteer.labeling.quality.report import labels_of
from gazetteer.labeling.vocabulary.synonyms import read_synonyms

if TYPE_CHECKING:
    from gazetteer.labeling.rules.kinds.explained import Explained


def accuracy(config: RunConfig, run: str) -> dict[str, Any]:
    """How often the labels of a run are right (`labeling.quality.accuracy`), on `config.accuracy`'s pictures.

    Returns:
        what `accuracy_of` gives, and ``images``, ``half``, ``few`` (judged spatial labels of what few of the pictures
        show, `few_pictures`) and what is not judged: ``words``, labels of text streams, of which pictures with masks
        say nothing, and ``unshown``, labels of what none of the pictures shows; of the tuning half also ``thresholds``,
        what other ones would have named (`labeling.quality.thresholds`).
    Raises:
        InputError: no pictures with truth are named, or the configuration is not the run's.
    """
    store = open_finished(run)
    labels = store.read_final("labels", COLUMNS)
    check_config(config, store)
    pictures = truth_pictures(config)
    named, concepts = _named(config, store, pictures)
    truth, shown = exact_truth(config, named, concepts), shown_in(named)
    rows, best = judged(labels, truth, shown), labels["rank"].to_numpy() == 1
    spoken = labels["stream"].to_numpy() == TEXT
    words, unshown = int((spoken & best).sum()), int((~spoken & best).sum()) - rows.num_rows
    about: dict[str, Any] = {
        "images": len(pictures), "half": config.accuracy.half, "few": few_pictures(rows, named), "words": words,
        "unshown": unshown,
    }  # fmt: skip
    if config.accuracy.half == "tuning":
        pairs = store.read_final("candidates", thresholds.COLUMNS)
        about["thresholds"] = thresholds.tried_thresholds(pairs, truth, labels_of(store), shown[0])
    return {**accuracy_of(rows, Counter(labels.filter(pa.array(best & ~spoken))["kind"].to_pylist())), **about}


def judged_exactly(config: RunConfig, store: RunFolder, labels: pa.Table, pictures: Sequence[ExactPicture]) -> pa.Table:
    """`judged` of a run's labels on exact pictures, whose names are taken as meant."""
    return judged(labels, *_exactly(config, store, pictures))


def _exactly(
    config: RunConfig, store: RunFolder, pictures: Sequence[ExactPicture]
) -> tuple[dict[Site, Explained], tuple[frozenset[str], frozenset[str]]]:
    """What explains a run's features on exact pictures, and the concepts and looks that these show, in its words."""
    named, concepts = _named(config, store, pictures)
    return exact_truth(config, named, concepts), shown_in(named)


def _named(
    config: RunConfig, store: RunFolder, pictures: Sequence[ExactPicture]
) -> tuple[list[ExactPicture], list[str]]:
    """Exact pictures named as the run names what they show, and the run's concepts."""
    rows = store.read_final("candidates", ["concept", "kind"]).to_pylist()
    concepts = sorted({row["concept"] for row in rows if row["kind"] not in ("style", "place")})
    styles = {*config.labels.styles, *(row["concept"] for row in rows if row["kind"] == "style")}
    return named_as(pictures, concepts, styles, read_synonyms(store)), concepts


def exact_truth(config: RunConfig, pictures: Sequence[ExactPicture], concepts: Sequence[str]) -> dict[Site, Explained]:
    """What explains the features of every site on exact pictures.

    concepts: names to hold beside those that the pictures show.
    """
    from gazetteer.labeling.rules.kinds.explained import explain

    styles = list(dict.fromkeys([*config.labels.styles, *(look for picture in pictures for look in picture.looks)]))
    looks, grids, truth = exact_looks(pictures, styles), {}, {}
    for site, codes in exact_codes(config, pictures):
        grid = (codes.height, codes.width)
        if grid not in grids:
            grids[grid] = exact_maps(pictures, concepts, [grid])
        truth[site] = explain(codes, grids[grid], styles, looks, "exact")
    return truth


def truth_pictures(config: RunConfig) -> list[ExactPicture]:
    """The pictures that `config.accuracy` names, by their names."""
    if not config.accuracy.truth:
        raise InputError("accuracy.truth names no pictures with exact masks, so labels cannot be judged.")
    give = import_named(config.accuracy.truth, "accuracy.truth")
    try:
        pictures = list(give(config.accuracy.images, config.accuracy.half))
    except Exception as error:  # a user's function may raise anything
        raise InputError(f"accuracy.truth {config.accuracy.truth!r} failed: {error}.") from error
    if not pictures or not all(isinstance(picture, ExactPicture) for picture in pictures):
        raise InputError(f"accuracy.truth {config.accuracy.truth!r} gave no data.inputs.exact.ExactPicture.")
    for picture in pictures:
        _require_exact(picture)
    ordered = sorted(pictures, key=lambda picture: picture.name)
    twice = [picture.name for picture, after in pairwise(ordered) if picture.name == after.name]
    if twice:
        raise InputError(f"accuracy.truth gave two pictures the name {twice[0]!r}; give each its own.")
    return ordered


def _require_exact(picture: ExactPicture) -> None:
    """InputError for a picture or masks that are not what `ExactPicture` says: floats 0..1 would be nearly black."""
    image = np.asarray(picture.image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"accuracy.truth: the image of {picture.name} is {image.dtype} {list(image.shape)}; accepted: uint8 "
            "[H, W, 3]."
        )
    for name, mask in picture.masks.items():
        if np.asarray(mask).dtype != np.bool_:
            raise InputError(
                f"accuracy.truth: the mask of {name!r} in {picture.name} is {np.asarray(mask).dtype}; accepted: bool "
                "[H, W]."
            )
        if mask.shape != image.shape[:2]:
            raise InputError(f"accuracy.truth: the mask of {name!r} in {picture.name} is not of its picture's size.")


def exact_codes(config: RunConfig, pictures: Sequence[ExactPicture]) -> Iterator[tuple[Site, SiteCodes]]:
    """The codes of finished pictures at every site of the image stream, noised to its t and seen once by the model with
    their prompts."""
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.labeling.layout.evaluation.model_pass import noised

    use_threads(config.threads)
    pipe = load_pipeline(config.model)
    saes = load_saes(config)
    told = [(picture.name, picture.prompt, picture.image) for picture in pictures]
    with tempfile.TemporaryDirectory(prefix="gazetteer-exact-") as folder:
        seen = noised(
            pipe, config.generation, config.generation.t, told, (), Path(folder), attention=False,
            batch_size=config.batch_size,
        )  # fmt: skip
        for site in sorted(site for site in saes if site.stream == IMAGE):
            yield site, seen.codes(site, site, saes[site])

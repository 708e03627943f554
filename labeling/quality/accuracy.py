"""How often a label is right, against pictures of which everything is known.

The pictures are noised to the t of each site and passed once through the model, and the features' activation in every
cell is explained by the exact masks, the true looks, the pictures' concepts and the built-in places
(labeling/rules/kinds/explained.py). A label is *right* when what it names, in the form that its kind says, explains
more of the activation than everything else does: every other concept, look and place, and the same concept in another
form, for a label that says where must know more than which pictures show the thing. A feature that stays silent on
these pictures has a label that is not right. Of a concept or look that none of them has, nobody can say whether its
labels are right: they are not judged. None of these pictures took part in labelling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.inputs.exact import ExactPicture
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.pooling import Grid, pool_masks
from gazetteer.labeling.evidence.site_codes import rows_by_site
from gazetteer.labeling.quality.intervals import Interval, fraction_interval
from gazetteer.labeling.rules.kinds.explained import PLACE, REGION, STYLE, Explained
from gazetteer.labeling.vocabulary.meant import stands_for
from gazetteer.labeling.vocabulary.synonyms import Synonyms

COLUMNS = [*SITE_COLUMNS, "feature", "concept", "kind", "rank", "specificity"]
"""What is read of labels.parquet."""

FEW_PICTURES = 20
"""What fewer exact pictures show than these is judged by too few: as many as `coverage.wanted` asks of a run."""

_STEPS = (25, 50, 100, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 5000, 10000)


def exact_maps(pictures: Sequence[ExactPicture], concepts: Sequence[str], grids: Sequence[Grid]) -> ConceptMaps:
    """The masks of exact pictures pooled to grids; every concept counts as asked of every picture.

    concepts: names to hold beside those that the pictures show.
    """
    names = tuple(sorted({*concepts, *(name for picture in pictures for name in picture.masks)}))
    number = {name: i for i, name in enumerate(names)}
    ordered = sorted(pictures, key=lambda picture: picture.name)
    owners: list[tuple[int, int]] = []
    pixels = {grid: [np.zeros((0, grid[0] * grid[1]), np.int32)] for grid in grids}
    for i, picture in enumerate(ordered):
        shown = sorted(picture.masks)
        owners += [(i, number[name]) for name in shown]
        if shown:
            pooled = pool_masks(np.stack([picture.masks[name] for name in shown]), list(grids))
            for grid in grids:
                pixels[grid].append(pooled[grid].astype(np.int32))
    union = np.array(owners, np.int64).reshape(-1, 2)
    return ConceptMaps(
        tuple(picture.name for picture in ordered), names, np.full(len(ordered), "exact"),
        np.array([picture.image.shape[:2] for picture in ordered], np.int64).reshape(-1, 2),
        np.ones((len(ordered), len(names)), np.bool_), union[:, 0], union[:, 1],
        {grid: np.concatenate(parts) for grid, parts in pixels.items()},
    )  # fmt: skip


def named_as(
    pictures: Sequence[ExactPicture],
    concepts: Collection[str],
    styles: Collection[str],
    synonyms: Synonyms | None = None,
) -> list[ExactPicture]:
    """The pictures with what they show called as the run calls it, however written: a mask of "Dogs" is of dog.

    Args:
        concepts, styles: names of the run; what is none of them keeps its own, and is a rival of all labels.
        synonyms: other names of the concepts.
    """
    masks = stands_for({name for picture in pictures for name in picture.masks}, concepts, synonyms)
    looks = stands_for({look for picture in pictures for look in picture.looks}, styles)
    named = []
    for picture in pictures:
        own: dict[str, NDArray[np.bool_]] = {}
        for name, mask in picture.masks.items():
            own[masks[name]] = own[masks[name]] | mask if masks[name] in own else mask
        named.append(replace(picture, masks=own, looks=tuple(dict.fromkeys(looks[look] for look in picture.looks))))
    return named


def shown_in(pictures: Sequence[ExactPicture]) -> tuple[frozenset[str], frozenset[str]]:
    """The concepts of which some picture shows a pixel, and the looks that some picture has."""
    concepts = {name for picture in pictures for name, mask in picture.masks.items() if mask.any()}
    return frozenset(concepts), frozenset(look for picture in pictures for look in picture.looks)


def exact_looks(pictures: Sequence[ExactPicture], styles: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the looks each picture has, in order of their names: bool [I, S]."""
    ordered = sorted(pictures, key=lambda picture: picture.name)
    shown = np.array([[style in picture.looks for style in styles] for picture in ordered], np.bool_)
    return shown.reshape(len(ordered), len(styles))


def judged(
    labels: pa.Table, truth: Mapping[Site, Explained], shown: tuple[frozenset[str], frozenset[str]] | None = None
) -> pa.Table:
    """The best label of every feature with what exact pictures say of it.

    Args:
        labels: schemas.LABELS, at least `COLUMNS`.
        truth: of every site, what explains its features on exact pictures.
        shown: `shown_in` of these pictures; None: all that labels name.
    Returns:
        `COLUMNS` of the rows with rank 1 and ``right`` (bool), ``truth_explained`` and ``truth_other`` (what the label
        and the best other explanation, be it the same concept in another form, explain there; 0 for a silent feature);
        rows of sites that `truth` lacks are left out, and so are those of what no picture shows.
    """
    best = labels.select(COLUMNS).filter(pa.compute.equal(labels["rank"], 1))
    if shown is not None:
        concepts, looks = shown
        names = zip(best["concept"].to_pylist(), best["kind"].to_pylist(), strict=True)
        known = [kind == PLACE or name in (looks if kind == STYLE else concepts) for name, kind in names]
        best = best.filter(pa.array(known, pa.bool_()))
    parts = []
    for site, rows in rows_by_site(best).items():
        if site in truth:
            part = best.take(pa.array(rows))
            parts.append(_judge(part, truth[site]))
    return pa.concat_tables(parts) if parts else _judge(best.slice(0, 0), None)


def _judge(part: pa.Table, explained: Explained | None) -> pa.Table:
    own, other = np.zeros((2, part.num_rows)) if explained is None else own_and_best_other(part, explained)
    extra = {"right": pa.array(own > other), "truth_explained": pa.array(own), "truth_other": pa.array(other)}
    for name, values in extra.items():
        part = part.append_column(name, values)
    return part


def own_and_best_other(part: pa.Table, explained: Explained) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each label of a site explains on exact pictures, and the best of everything else: [L] each; 0, 0 if silent.

    part: at least ``feature``, ``concept`` and ``kind``.
    """
    own, other = np.zeros((2, part.num_rows))
    column = {pair: i for i, pair in enumerate(zip(explained.names, explained.forms, strict=True))}
    row = {int(feature): i for i, feature in enumerate(explained.features)}
    for number, label in enumerate(part.select(["feature", "concept", "kind"]).to_pylist()):
        form = REGION if label["kind"] in SPATIAL_KINDS else label["kind"]
        at = column.get((label["concept"], form))
        if at is not None and label["feature"] in row:
            fraction = explained.fraction[row[label["feature"]]]
            own[number], other[number] = fraction[at], np.delete(fraction, at).max(initial=0.0)
    return own, other


def few_pictures(rows: pa.Table, pictures: Sequence[ExactPicture]) -> int:
    """How many judged spatial labels name what fewer than `FEW_PICTURES` of the pictures, named as the run is, show."""
    shown = Counter(name for picture in pictures for name, mask in picture.masks.items() if mask.any())
    named = zip(rows["kind"].to_pylist(), rows["concept"].to_pylist(), strict=True)
    return sum(kind in SPATIAL_KINDS and shown[concept] < FEW_PICTURES for kind, concept in named)


def accuracy_of(rows: pa.Table, carried: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Accuracy of judged labels (`judged`).

    Args:
        carried: features by the kind of their best label, judged or not; None: `rows` are all of them.
    Returns:
        ``labels``: features whose best label is spatial, ``judged``: those of them that are judged; ``right``: [mean,
        low, high] over the judged ones, 95 % (`fraction_interval`, all labels of a concept drawn together, for they are
        right and wrong by the same masks; the pictures are not drawn, so that what other pictures would say is not in
        it); ``curve``: [[labels, share right], ...] of the most certain ones, which explain the most times what their
        runner-up in the run does (the column ``specificity``); ``by_kind``: labels, judged and right of every kind;
        ``silent``: spatial labels of features that never fired on the exact pictures, which count as not right.
    """
    kind, concept = (np.array(rows[name].to_pylist(), np.str_) for name in ("kind", "concept"))
    right = rows["right"].to_numpy(zero_copy_only=False).astype(np.float64)
    spatial = np.isin(kind, SPATIAL_KINDS)
    specific = np.nan_to_num(rows["specificity"].to_numpy().astype(np.float64), nan=-np.inf)
    order = np.flatnonzero(spatial)[np.argsort(-specific[spatial], kind="stable")]
    heard = (rows["truth_explained"].to_numpy() > 0) | (rows["truth_other"].to_numpy() > 0)
    steps = [*(n for n in _STEPS if n < len(order)), *([len(order)] if len(order) else [])]

    def share(of: NDArray[np.bool_]) -> Interval:
        return fraction_interval(right[of].tolist(), concept[of].tolist())

    counted = Counter(kind.tolist())
    known = counted if carried is None else Counter(carried)
    return {
        "labels": sum(known[k] for k in SPATIAL_KINDS), "judged": int(spatial.sum()),
        "right": share(spatial),
        "curve": [[n, round(float(right[order[:n]].mean()), 4)] for n in steps],
        "by_kind": {k: {"labels": known[k], "judged": counted[k], "right": share(kind == k)} for k in sorted(known)},
        "silent": int((spatial & ~heard).sum()),
    }  # fmt: skip


def print_accuracy(result: Mapping[str, Any]) -> None:
    """The accuracy as text."""
    if result.get("words"):
        print(f"accuracy: {result['words']} labels of words are not judged: pictures with masks say nothing of them")
    if result.get("unshown"):
        print(f"accuracy: {result['unshown']} labels are not judged: no picture shows what they name")
    if not result["judged"]:
        shown = " of what the pictures show" if result.get("unshown") else ""
        print(f"accuracy: no feature carries a label that says where{shown}, so none is judged")
        return
    mean, low, high = result["right"]
    of = f"{result['judged']} labels"
    if result["judged"] < result["labels"]:
        of = f"the {result['judged']} judged of {result['labels']} labels"
    print(
        f"accuracy: {mean:.1%} [{low:.1%}, {high:.1%}] of {of} of things, stuff and parts are right on "
        f"{result['images']} pictures with exact masks ({result['silent']} features silent there; the interval is over "
        "concepts, not over pictures)"
    )
    if result.get("few"):
        print(
            f"  {result['few']} of these name what fewer than {FEW_PICTURES} of the pictures show: on others the "
            "share may lie outside the interval; raise accuracy.images"
        )
    print("  the most certain: " + ", ".join(f"{right:.1%} of {n}" for n, right in result["curve"]))
    kinds = ((kind, row) for kind, row in result["by_kind"].items() if row["judged"])
    print("  by kind: " + ", ".join(f"{kind} {row['right'][0]:.1%} of {row['judged']}" for kind, row in kinds))

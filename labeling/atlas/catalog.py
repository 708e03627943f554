"""What the atlas shows, gathered from the final tables: sites, features, their labels and what came closest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.atlas.activity import Activity
from gazetteer.labeling.atlas.script import safe_folder
from gazetteer.labeling.evidence.site_codes import rows_by_site

# What a page knows of a label, in the order it is packed.
LABEL_COLUMNS = (
    "concept", "kind", "explained", "heldout_explained", "specificity", "runner_up", "runner_up_kind",
    "mass_precision", "where_lift", "where_q_value", "auc", "auc_low", "auc_high", "dataset_iou", "null_iou", "lift",
    "q_value", "precision", "recall", "hits", "hit_rate", "mean_iou", "images_feature", "images_concept",
    "images_both", "heldout_images", "heldout_hit_rate", "heldout_mean_iou", "heldout_dataset_iou", "top_share",
    "top_iou", "heldout_top_iou", "paper_label",
)  # fmt: skip
NEAR_COLUMNS = ("concept", "dataset_iou", "null_iou", "q_value")
CAUSAL_COLUMNS = (
    "concept", "images", *(f"{m}{end}" for m in ("area", "area_on", "area_random", "presence")
                                    for end in ("", "_low", "_high")), "q_value", "verdict",
)  # fmt: skip
NEAR = 3
CAUSED = 8  # concepts shown besides a feature's own labels


@dataclass
class SitePart:
    """One site of the atlas.

    Attributes:
        slug: its address; `folder`: where its chunks lie; `tint`: the number of its block.
        features: rows of the features table, by number; `images` of `top_images` not in the run are left out.
        labels: by feature number, rows of the labels table in order of rank.
        near: by number of an unlabelled feature, its best candidates that earned no trust.
        causal: by feature number, its labels' rows of the causal table, then what else surely changes.
        activity: how its features fire, empty until its codes are read.
        grid: (height, width) of its codes, None until they are read.
    """

    site: Site
    slug: str
    folder: str
    tint: int
    features: list[dict[str, Any]]
    labels: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    near: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    causal: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    activity: Activity = field(default_factory=Activity)
    grid: tuple[int, int] | None = None


@dataclass
class Catalog:
    """Every site in atlas order (blocks as in the network's name order, first sampler step first)."""

    model: str
    parts: list[SitePart]
    blocks: list[str]

    def label_concepts(self) -> set[str]:
        """Every concept that a label, a near miss or a cause names."""
        kinds = (kind for part in self.parts for kind in (part.labels, part.near, part.causal))
        rows = (row for kind in kinds for entries in kind.values() for row in entries)
        return {row["concept"] for row in rows}


def read_catalog(run: RunFolder, top: int) -> Catalog:
    """The final tables of a finished run; InputError when it is not finished or empty."""
    features = run.read_final("features")
    if not features.num_rows:
        raise InputError(f"{run.path} has no features to show; run gazetteer label with at least one site.")
    labels = run.read_final("labels")
    rows = rows_by_site(features)
    blocks = sorted({str(site.port) for site in rows}, key=_natural)
    taken: set[str] = set()
    parts: list[SitePart] = []
    for site in sorted(rows, key=lambda s: (_natural(s.block), *s.place[1:], -s.t)):
        folder = safe_folder(site.slug, taken)
        slug = site.slug if all(p.slug != site.slug for p in parts) else f"{site.slug}~{site.t:g}"
        table = features.take(pa.array(rows[site])).sort_by("feature").drop_columns(list(SITE_COLUMNS))
        part = SitePart(site, slug, folder, blocks.index(str(site.port)) % 12, table.to_pylist())
        for row in part.features:
            row["top_images"] = row["top_images"][:top]
        parts.append(part)
    _attach_labels(parts, labels)
    _attach_near(parts, run)
    _attach_causal(parts, run)
    return Catalog(features["model"][0].as_py(), parts, blocks)


def _natural(block: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts ``up_blocks.10`` after ``up_blocks.9``."""
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", block))


def _attach_labels(parts: list[SitePart], labels: pa.Table) -> None:
    rows = rows_by_site(labels)
    for part in parts:
        if part.site not in rows:
            continue
        table = labels.take(pa.array(rows[part.site])).sort_by([("feature", "ascending"), ("rank", "ascending")])
        for row in table.select(["feature", *LABEL_COLUMNS]).to_pylist():
            part.labels.setdefault(row["feature"], []).append(row)


def _attach_near(parts: list[SitePart], run: RunFolder) -> None:
    """For unlabelled features the untrusted candidates furthest above chance."""
    columns = [*SITE_COLUMNS, "feature", *NEAR_COLUMNS]
    table = run.read_final("candidates", columns=columns, filter=[("trusted", "==", False)])
    rows = rows_by_site(table)
    for part in parts:
        if part.site not in rows:
            continue
        part_rows = table.take(pa.array(rows[part.site]))
        chosen = _furthest(part_rows, np.fromiter(part.labels, np.int64, len(part.labels)))
        for row in part_rows.select(["feature", *NEAR_COLUMNS]).take(pa.array(chosen)).to_pylist():
            part.near.setdefault(row["feature"], []).append(row)


def _furthest(table: pa.Table, labelled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the NEAR candidates of every feature outside `labelled` with the largest IoU above chance."""
    feature = table["feature"].to_numpy()
    overlap, chance = (np.nan_to_num(table[name].to_numpy().astype(float)) for name in ("dataset_iou", "null_iou"))
    rows = np.flatnonzero(~np.isin(feature, labelled) & (overlap > 0))
    rows = rows[np.lexsort((rows, (chance - overlap)[rows], feature[rows]))]
    place = np.arange(len(rows)) - np.searchsorted(feature[rows], feature[rows], side="left")
    return rows[place < NEAR]


def _attach_causal(parts: list[SitePart], run: RunFolder) -> None:
    """What switching the features showed, where that was tried: labels by area changed, then the surest others."""
    if not run.has_final("causal"):
        return
    table = run.read_final("causal")
    rows = rows_by_site(table)
    for part in (part for part in parts if part.site in rows):
        for row in table.take(pa.array(rows[part.site])).to_pylist():
            if row["labelled"] or row["causal_verdict"] in ("effect without label", "suppressed"):
                shown = {name: row[name if name == "concept" else f"causal_{name}"] for name in CAUSAL_COLUMNS}
                part.causal.setdefault(row["feature"], []).append({**shown, "labelled": row["labelled"]})
        for feature, causes in part.causal.items():
            causes.sort(key=lambda row: (not row["labelled"], row["q_value"], -abs(row["area"]), row["concept"]))
            part.causal[feature] = [r for i, r in enumerate(causes) if r["labelled"] or i < CAUSED]

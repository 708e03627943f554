"""The data the pages load: the atlas itself, the index's columns, chunks of features and chunks of concepts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gazetteer.data.tables.schemas import KINDS
from gazetteer.labeling.atlas.catalog import CAUSAL_COLUMNS, LABEL_COLUMNS, NEAR_COLUMNS, Catalog, SitePart
from gazetteer.labeling.atlas.maps import FoundMaps
from gazetteer.labeling.atlas.pictures import SUFFIX
from gazetteer.labeling.atlas.script import figure, thousandths

VERSION = 3
"""Of what the data files hold; an atlas of another is written anew where one is served."""
FEATURE_CHUNK = 128
IMAGE_CHUNK = 32
CONCEPT_CHUNK = 64
STRIP = 3  # pictures shown with an entry of the index
BEST = 5  # features kept a site and concept


def atlas_payload(catalog: Catalog, concepts: Sequence[str], images: int, extras: Mapping[str, int]) -> dict[str, Any]:
    """What every page needs: sites, blocks and names; small whatever the number of features."""
    carriers: dict[str, int] = defaultdict(int)
    for part in catalog.parts:
        for rows in part.labels.values():
            for row in rows:
                carriers[row["concept"]] += 1
    return {
        "model": catalog.model,
        "blocks": catalog.blocks,
        "sites": [_site_payload(part) for part in catalog.parts],
        "concepts": list(concepts),
        "carriers": [carriers[concept] for concept in concepts],
        "images": images,
        "label_columns": LABEL_COLUMNS,
        "kinds": KINDS,
        "near_columns": NEAR_COLUMNS,
        "causal_columns": CAUSAL_COLUMNS,
        "extras": dict(extras),
        "image_chunk": IMAGE_CHUNK,
        "concept_chunk": CONCEPT_CHUNK,
    }


def _site_payload(part: SitePart) -> dict[str, Any]:
    return {
        "slug": part.slug,
        "folder": part.folder,
        **part.site.columns(),
        "port": str(part.site.port),
        "tint": part.tint,
        "grid": part.grid,
        "n": len(part.features),
        "labelled": sum(bool(rows) for rows in part.labels.values()),
        "dead": sum(bool(row["dead"]) for row in part.features),
        "sampled": figure(part.activity.sampled, 2),
        "starts": [row["feature"] for row in part.features[::FEATURE_CHUNK]],
    }


def index_payload(catalog: Catalog, numbers: Mapping[str, int], concepts: Mapping[str, int]) -> dict[str, Any]:
    """Columns of every feature in site order, and of every label in feature order; overlaps in thousandths."""
    columns: dict[str, list[Any]] = {name: [] for name in ("f", "density", "labels", "top", "cell")}
    labels: dict[str, list[Any]] = {name: [] for name in ("concept", "kind", "explained", "iou", "chance", "held", "q")}
    for part in catalog.parts:
        width = part.grid[1] if part.grid else 0
        for row in part.features:
            own = part.labels.get(row["feature"], [])
            columns["f"].append(row["feature"])
            columns["density"].append(figure(row["density"], 3) or 0)
            columns["labels"].append(len(own))
            shown = row["top_images"][:STRIP]
            columns["top"] += [numbers[top["image_id"]] for top in shown] + [-1] * (STRIP - len(shown))
            columns["cell"] += [top["row"] * width + top["column"] for top in shown] + [0] * (STRIP - len(shown))
            for label in own:
                labels["concept"].append(concepts[label["concept"]])
                labels["kind"].append(KINDS.index(label["kind"]))
                labels["explained"].append(thousandths(label["explained"]) or 0)
                labels["iou"].append(thousandths(label["dataset_iou"]) or 0)
                labels["chance"].append(thousandths(label["null_iou"]))
                labels["held"].append(thousandths(label["heldout_dataset_iou"]))
                labels["q"].append(figure(label["q_value"], 2))
    return {**columns, **labels, "images": list(numbers), "suffix": SUFFIX}


def feature_chunks(
    part: SitePart, numbers: Mapping[str, int], concepts: Mapping[str, int], maps: FoundMaps
) -> list[list[dict[str, Any]]]:
    """The features of a site in chunks of FEATURE_CHUNK, everything their pages show."""
    rows = [_feature_payload(part, row, numbers, concepts, maps) for row in part.features]
    return [rows[start : start + FEATURE_CHUNK] for start in range(0, len(rows), FEATURE_CHUNK)]


def _feature_payload(
    part: SitePart, row: Mapping[str, Any], numbers: Mapping[str, int], concepts: Mapping[str, int], maps: FoundMaps
) -> dict[str, Any]:
    top = []
    for place in row["top_images"]:
        heat = maps.get((part.site, place["image_id"], row["feature"]))
        if heat is not None:
            peak = figure(place["value"])
            where = [place["row"], place["column"], heat.height, heat.width]
            top.append([numbers[place["image_id"]], peak, *where, heat.packed])
    examples = []
    for quantile, image_id, value, cell in part.activity.examples.get(row["feature"], ()):
        heat = maps[part.site, image_id, row["feature"]]
        where = [*divmod(cell, heat.width), heat.height, heat.width]
        examples.append([figure(quantile, 2), numbers[image_id], figure(value), *where, heat.packed])
    return {
        "f": row["feature"],
        "images": row["images"],
        "wanted": row["images_wanted"],
        "short": row["images_short"],
        "density": figure(row["density"]),
        "mean": figure(row["mean_activation"]),
        "max": figure(row["max_activation"]),
        "dead": bool(row["dead"]),
        "labels": [_packed(label, LABEL_COLUMNS, concepts) for label in part.labels.get(row["feature"], [])],
        "near": [_packed(label, NEAR_COLUMNS, concepts) for label in part.near.get(row["feature"], [])],
        "causal": [_packed(row, CAUSAL_COLUMNS, concepts) for row in part.causal.get(row["feature"], [])],
        "top": top,
        "examples": examples,
        "histogram": [int(n) for n in part.activity.histograms.get(row["feature"], ())],
        "partners": _company(part, part.activity.partners.get(row["feature"], ()), concepts),
        "alike": _company(part, part.activity.alike.get(row["feature"], ()), concepts),
    }


def _company(part: SitePart, others: Sequence[tuple[int, float]], concepts: Mapping[str, int]) -> list[list[Any]]:
    """Other features with how near they are and the number of their best name, if they have one."""
    names = {other: part.labels[other][0]["concept"] for other, _ in others if part.labels.get(other)}
    return [[other, figure(near, 2), concepts[names[other]] if other in names else None] for other, near in others]


def _packed(row: Mapping[str, Any], columns: Sequence[str], concepts: Mapping[str, int]) -> list[Any]:
    packed: list[Any] = []
    for name in columns:
        value = row[name]
        packed.append(concepts[value] if name == "concept" else figure(value) if isinstance(value, float) else value)
    return packed


def concept_chunks(
    catalog: Catalog,
    concepts: Sequence[str],
    numbers: Mapping[str, int],
    examples: Mapping[str, list[str]],
    counts: Mapping[str, int],
) -> list[list[dict[str, Any]]]:
    """Every concept with its best features a site (furthest above chance first) and its example images, in chunks."""
    best: dict[str, list[list[list[Any]]]] = defaultdict(lambda: [[] for _ in catalog.parts])
    for site, part in enumerate(catalog.parts):
        rows = [row for labels in part.labels.values() for row in labels]
        rows.sort(key=lambda row: ((row["null_iou"] or 0.0) - (row["dataset_iou"] or 0.0), row["feature"]))
        for row in rows:
            best_here = best[row["concept"]][site]
            if len(best_here) < BEST:
                values = (row[name] for name in ("dataset_iou", "null_iou", "heldout_dataset_iou", "q_value"))
                best_here.append([row["feature"], *(figure(value, 3) for value in values)])
    payload = [
        {
            "best": best[concept],
            "images": [numbers[image_id] for image_id in examples.get(concept, [])],
            "found": counts.get(concept, 0),
        }
        for concept in concepts
    ]
    return [payload[start : start + CONCEPT_CHUNK] for start in range(0, len(payload), CONCEPT_CHUNK)]

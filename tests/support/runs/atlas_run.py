"""A finished run made up on the spot: painted pictures, planted features, and text that wants to break out.

`make_run` writes it through the real store. Feature 0 of every site follows the sky, feature 1 the disc in it,
feature 2 is silent, the others fire at random; what they are called follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import CANDIDATES, FEATURES, IMAGES, LABELS, SEGMENTS

HOSTILE_PROMPT = (
    "a sky </script><script>document.title='broken out'</script> \"over\" <img src=x onerror=alert(1)> it's"
)
HOSTILE_CONCEPT = 'disc "<b>bold</b>" & co'
CONCEPTS = ("sky", HOSTILE_CONCEPT, "ground")
PROVENANCE: dict[str, Any] = {"schema_version": 1, "fingerprint": {}, "config": {}, "packages": {}}


def sites(blocks: int = 3, steps: int = 2, branches: Sequence[str] = ("cond",)) -> list[Site]:
    """`blocks` × `branches` × `steps` sites."""
    names = ["down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0"]
    names += [f"up_blocks.{number}.attentions.1" for number in range(2, blocks)]
    moments = np.linspace(1.0, 0.0, steps + 1)[:-1] if steps > 1 else [0.5]
    return [Site(b, branch, round(float(t), 2)) for b in names[:blocks] for branch in branches for t in moments]


@dataclass(frozen=True)
class Plan:
    """The size of a run: `side` pixels a picture, `grid` cells a side, `k` slots a cell."""

    sites: list[Site] = field(default_factory=sites)
    images: int = 12
    features: int = 16
    side: int = 64
    grid: int = 8
    k: int = 4
    shard: int = 50
    named: int = 2


def make_run(path: Path, plan: Plan | None = None) -> RunFolder:
    """Write a run of this size to `path`."""
    plan = plan or Plan()
    run = RunFolder(path).open_or_create({})
    rng = np.random.default_rng(7)
    shards = []
    ids = [f"{number:016x}" for number in range(plan.images)]
    layouts = [(rng.uniform(0.35, 0.65), rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.16)) for _ in ids]
    for start in range(0, plan.images, plan.shard):
        part = range(start, min(start + plan.shard, plan.images))
        names, here = [ids[i] for i in part], [layouts[i] for i in part]
        moments = {site: Moment(step, 1000 - step) for step, site in enumerate(plan.sites)}
        codes = [{site: _code(plan, layout, rng) for site in plan.sites} for layout in here]
        tables = {
            "images": pa.Table.from_pylist([_image(plan, i, ids[i], layouts[i], rng) for i in part], schema=IMAGES),
            "segments": pa.Table.from_pylist(
                [row for n, layout in zip(names, here, strict=True) for row in _segments(plan, n, layout)],
                schema=SEGMENTS,
            ),
            "codes": codes_table(names, codes, moments),
        }
        shards.append(run.commit_shard(f"shard{start:05d}", tables, {"images": len(part)}, PROVENANCE).shard)
    labels, candidates, features = _tables(plan, ids, rng)
    run.write_final("labels", labels, PROVENANCE)
    run.write_final("candidates", candidates, PROVENANCE)
    run.write_final("features", features, PROVENANCE)
    run.finish({"shards": shards})
    return run


def _regions(side: int, layout: tuple[float, float, float]) -> dict[str, NDArray[np.bool_]]:
    """Masks bool[side, side] of the three concepts for (horizon, disc place, disc size)."""
    horizon, place, size = layout
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    disc = (x - place) ** 2 + (y - horizon / 2) ** 2 < size**2
    sky = (y < horizon + 0.03 * np.sin(9 * x + 20 * place)) & ~disc
    return {"sky": sky, HOSTILE_CONCEPT: disc, "ground": ~sky & ~disc}


def _image(
    plan: Plan, number: int, image_id: str, layout: tuple[float, float, float], rng: np.random.Generator
) -> dict[str, Any]:
    regions = _regions(plan.side, layout)
    colours = {"sky": (120, 170, 215), HOSTILE_CONCEPT: (250, 205, 90), "ground": (90, 125, 70)}
    pixels = np.zeros((plan.side, plan.side, 3))
    for name, mask in regions.items():
        pixels[mask] = colours[name]
    pixels += np.linspace(-25, 25, plan.side)[:, None, None] + rng.normal(0, 4, (plan.side, plan.side, 1))
    return {
        "image_id": image_id,
        "prompt": HOSTILE_PROMPT if number == 0 else f"scene {number}: a disc in the sky over green ground",
        "seed": 2**62 + number,
        "split": "heldout" if number % 3 == 2 else "discovery",
        "image": {"bytes": encode_image(pixels.clip(0, 255).astype(np.uint8)), "path": f"{image_id}.png"},
        "width": plan.side,
        "height": plan.side,
        "asked": list(CONCEPTS),
    }


def _segments(plan: Plan, image_id: str, layout: tuple[float, float, float]) -> list[dict[str, Any]]:
    rows = []
    for concept, mask in _regions(plan.side, layout).items():
        ys, xs = np.nonzero(mask)
        rows.append(
            {
                "image_id": image_id,
                "concept": concept,
                "score": 0.8,
                "box": [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)],
                "area": int(mask.sum()),
                "predicted_iou": 0.9,
                "mask": mask_to_struct(mask),
            }
        )
    return rows


def _code(plan: Plan, layout: tuple[float, float, float], rng: np.random.Generator) -> SparseMap:
    """Slot 0 the sky's feature, slot 1 the disc's, the others at random among the rest."""
    regions = _regions(plan.grid, layout)
    cells = plan.grid**2
    feature = rng.integers(3, plan.features, (cells, plan.k)).astype(np.uint32)
    value = rng.gamma(2.0, 0.5, (cells, plan.k)).astype(np.float16)
    for slot, concept in enumerate((CONCEPTS[0], CONCEPTS[1])):
        feature[:, slot] = slot
        value[:, slot] *= regions[concept].ravel() & (rng.random(cells) < 0.9)
    return SparseMap(plan.grid, plan.grid, plan.k, feature.ravel(), value.ravel())


def _label(site: Site, feature: int, concept: str, rank: int, iou: float, trusted: bool) -> dict[str, Any]:
    chance = iou * (0.45 if trusted else 0.97)
    return {
        "model": "toy", **site.columns(), "feature": feature, "concept": concept,
        "kind": "thing", "explained": 0.6 * iou, "heldout_explained": 0.5 * iou, "specificity": 0.7,
        "runner_up": "top half", "runner_up_kind": "place", "runner_up_explained": 0.18 * iou, "mass_precision": 0.8,
        "where_lift": 1.4, "where_p_value": 0.002, "where_q_value": 0.01,
        "rank": rank, "images_feature": 10, "images_concept": 9, "images_both": 8, "hits": 5, "hit_rate": 0.625,
        "mean_iou": 0.9 * iou, "dataset_iou": iou, "precision": 0.8, "recall": 0.7, "null_iou": chance,
        "lift": iou / chance, "p_value": 0.001 if trusted else 0.4, "q_value": 0.004 if trusted else 0.6,
        "heldout_images": 4, "heldout_hit_rate": 0.5, "heldout_mean_iou": 0.85 * iou, "heldout_dataset_iou": 0.93 * iou,
        "top_share": 0.6, "top_threshold": 0.5, "top_iou": 1.1 * iou, "heldout_top_iou": 1.05 * iou,
        "paper_label": True, "trusted": trusted,
    }  # fmt: skip


def _tables(plan: Plan, ids: list[str], rng: np.random.Generator) -> tuple[pa.Table, pa.Table, pa.Table]:
    """labels, candidates and features, consistent with one another."""
    candidates, features = [], []
    for site in plan.sites:
        for feature in range(plan.features):
            mine: list[dict[str, Any]] = []
            if feature != 2 and feature < plan.named:
                iou = round(float(rng.uniform(0.3, 0.8)), 3)
                mine.append(_label(site, feature, CONCEPTS[feature % 3], 1, iou, True))
                if feature == 1:
                    mine.append(_label(site, feature, "sky", 2, 0.2, True))
            elif feature != 2:
                mine.append(_label(site, feature, "ground", 1, 0.1, False))
            candidates += mine
            features.append(_feature(plan, site, feature, [row for row in mine if row["trusted"]], ids, rng))
    table = pa.Table.from_pylist(candidates, schema=CANDIDATES)
    labels = table.filter(table["trusted"]).drop_columns("trusted").cast(LABELS)
    return labels, table, pa.Table.from_pylist(features, schema=FEATURES)


def _feature(
    plan: Plan, site: Site, feature: int, labels: list[dict[str, Any]], ids: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    dead = feature == 2
    top = [] if dead else rng.choice(len(ids), min(6, len(ids)), replace=False)
    row, column = rng.integers(0, plan.grid, 2)
    best = labels[0] if labels else None
    return {
        "model": "toy", **site.columns(), "feature": feature,
        "images": 0 if dead else len(ids), "images_wanted": 20, "images_short": max(0, 20 - len(ids)),
        "density": 0.0 if dead else float(rng.uniform(0.001, 0.2)), "mean_activation": None if dead else 0.9,
        "max_activation": None if dead else 4.2, "dead": dead, "best_label": best and best["concept"],
        "best_dataset_iou": best and best["dataset_iou"],
        "best_heldout_dataset_iou": best and best["heldout_dataset_iou"], "best_q_value": best and best["q_value"],
        "labels": len(labels), "paper_labels": len(labels),
        "top_images": [
            {"image_id": ids[i], "value": 4.2 - 0.3 * n, "row": int(row), "column": int(column)}
            for n, i in enumerate(top)
        ],
    }  # fmt: skip

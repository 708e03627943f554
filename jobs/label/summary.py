"""What a finished run holds, for a person and for a machine, read from its tables alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from gazetteer.data.core.sites import IMAGE, SITE_COLUMNS, TEXT, Port, Site
from gazetteer.data.core.terminal import print_table
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.jobs.label.untrusted import print_stopped, stopped_pairs
from gazetteer.labeling.evidence.site_codes import site_of_row, site_order
from gazetteer.labeling.quality.kinds import label_kinds


def summarise(run: str | Path) -> dict[str, Any]:
    """Counts per site, concepts and words found, what stopped other pairs, seconds per stage and where things are.

    What stopped pairs is said of the image stream, or of a run of words alone of those.

    Raises:
        InputError: the run is not finished.
    """
    store = RunFolder(run)
    manifest = store.require_finished()
    features = store.read_final("features", [*SITE_COLUMNS, "dead", "labels", "images_short"])
    labels = store.read_final("labels", ["concept", "kind", "rank", "dataset_iou", "heldout_dataset_iou"])
    sites = _sites(features)
    images = store.read_table("images", columns=["prompt", "tokens_cut"])
    cut, drawn = images["tokens_cut"].to_numpy(), not given_setting(store.read_json("run.json") or {})
    rows = store.read_table("failures", columns=["item", "error"]).to_pylist()
    errors = {row["item"]: row["error"] for row in rows if row["item"] in set(manifest["failing"])}
    return {
        "run": str(run),
        "images": manifest["images"],
        "segments": manifest["segments"],
        "failing": len(manifest["failing"]),
        "failures": dict(sorted(Counter(errors.values()).items())),
        "prompts_cut": int((cut > 0).sum()),
        "prompts_repeated": images.num_rows - len(images["prompt"].unique()) if drawn else 0,
        "features": features.num_rows,
        "alive": sum(site["alive"] for site in sites),
        "labelled": sum(site["labelled"] for site in sites),
        "short": sum(site["short"] for site in sites),
        "kinds": label_kinds(labels),
        "concepts": _concepts(labels, SPATIAL_KINDS),
        "words": _concepts(labels, ("word",)),
        "pairs": stopped_pairs(store, manifest["images"], IMAGE if _pictured(sites) else TEXT),
        "sites": sites,
        "seconds": manifest["seconds"],
        "wall_seconds": manifest["wall_seconds"],
    }


def _sites(features: pa.Table) -> list[dict[str, Any]]:
    """Per site: features, those that ever fired, those with a label, and live ones with fewer pictures than wanted."""
    counted: dict[Site, Counter[str]] = defaultdict(Counter)
    for row in features.to_pylist():
        counts = counted[site_of_row(row)]
        alive = not row["dead"]
        counts.update(features=1, alive=alive, labelled=row["labels"] > 0, short=alive and row["images_short"] > 0)
    return [{**site.columns(), **counted[site]} for site in sorted(counted, key=site_order)]


def print_summary(summary: dict[str, Any], before: bool = False) -> None:
    """The summary as text.

    Args:
        before: the run was finished by an earlier command.
    """
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary["failures"].items())
    print(
        f"\n{summary['images']} pictures, {summary['segments']} segments, {summary['failing']} failures"
        + (f" ({kinds})" if kinds else "")
    )
    if summary["prompts_cut"]:
        print(
            f"{summary['prompts_cut']} pictures were drawn from the beginning of their prompt alone: the text encoder "
            "reads no further (images.tokens_cut says by how much)"
        )
    if summary["prompts_repeated"]:
        print(
            f"{summary['prompts_repeated']} pictures repeat the prompt of another: p and q take the pictures of one "
            "prompt for one witness, so that more prompts say more than more pictures of each"
        )
    print(f"{summary['alive']} of {summary['features']} features alive, {summary['labelled']} labelled")
    print(f"{summary['short']} features still have fewer pictures than wanted\n")
    print_table(
        {"block": "", "branch": "", "t": ".2f", "features": "d", "alive": "d", "labelled": "d"},
        (
            (Port(site["block"], site["stream"], site["signal"]), site["branch"], site["t"],
             site["features"], site["alive"], site["labelled"])
            for site in summary["sites"]
        ),
    )  # fmt: skip
    if any(summary["kinds"].values()):
        print("\nbest labels by kind: " + ", ".join(f"{count} {kind}" for kind, count in summary["kinds"].items()))
    _print_named(summary["concepts"], "where a concept is")
    _print_named(summary["words"], "where a word is in the prompt")
    pictured = _pictured(summary["sites"])
    if not summary["concepts" if pictured else "words"]:
        print()
        what = "no thing, stuff or part" if pictured else "no word"
        what = what if any(summary["kinds"].values()) else "nothing"
        print_stopped(summary["pairs"], summary["images"], what)
    spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in summary["seconds"].items())
    command = "the command that finished it" if before else "this command"
    print(f"\nworker seconds: {spent}; {command} took {summary['wall_seconds']:.0f} s")
    print(f"tables: {summary['run']}/labels.parquet, features.parquet, candidates.parquet, images/, segments/, codes/")


def _print_named(named: list[dict[str, Any]], what: str) -> None:
    if named:
        print(f"features best labelled with {what} (held-out IoU of the best):")
        best = (f"{c['concept']} {c['features']} ({_iou(c['best_heldout_iou'])})" for c in named)
        print("  " + ", ".join(best))


def _pictured(sites: list[dict[str, Any]]) -> bool:
    """Whether one of the sites listens to pictures, not to words alone."""
    return any(site["stream"] == IMAGE for site in sites)


def _iou(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _concepts(labels: Any, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Per concept: how many features it is the best label of as one of these kinds, and the held-out IoU of the one
    with the highest discovery IoU."""
    ious: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    for row in labels.to_pylist():
        if row["rank"] == 1 and row["kind"] in kinds:
            ious[row["concept"]].append((row["dataset_iou"] or 0.0, row["heldout_dataset_iou"]))
    return [
        {
            "concept": concept,
            "features": len(values),
            "best_heldout_iou": None if (held := max(values, key=lambda v: v[0])[1]) is None else round(held, 4),
        }
        for concept, values in sorted(ious.items())
    ]

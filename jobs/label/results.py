"""What workers hand over, joined and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.runs.folder import Commit
from gazetteer.data.runs.shards.parts import ShardParts, Workshop
from gazetteer.data.tables.schemas import FAILURES, LABELLING_TABLES
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.task import Lost
from gazetteer.labeling.evidence.counts import sum_evidence
from gazetteer.labeling.pipeline.config import STAGES
from gazetteer.labeling.pipeline.shard import ShardResult
from gazetteer.sae.model.sources import configs


def join_results(parts: Sequence[ShardResult]) -> ShardResult:
    """The result of a shard from the results of consecutive parts of it."""
    tables = {
        name: pa.concat_tables([part.tables[name] for part in parts]) for name in parts[0].tables if name != "evidence"
    }
    tables["evidence"] = sum_evidence([part.tables["evidence"] for part in parts])
    seconds = {k: sum(p.seconds.get(k, 0.0) for p in parts) for k in {k for p in parts for k in p.seconds}}
    counts = {k: sum(p.counts.get(k, 0) for p in parts) for k in {k for p in parts for k in p.counts}}
    explained = next((part.explained for part in parts if part.explained), {})
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return ShardResult(tables, seconds, counts, explained, notes)


@dataclass(frozen=True)
class Finished:
    """A shard as its worker hands it over: what the record and the log need; the tables are published.

    Attributes:
        failures: rows of its `failures`.
        notes: what its workers warned of.
    """

    parts: ShardParts
    seconds: dict[str, float]
    counts: dict[str, int]
    explained: dict[str, float]
    failures: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def publish_shard(workshop: Workshop, shard: str, result: ShardResult) -> Finished:
    """Publish a shard's tables (`gazetteer.data.runs.shards.parts`); raises GazetteerError when the storage refuses."""
    failures = result.tables["failures"].to_pylist()
    parts = workshop.publish(shard, result.tables)
    return Finished(parts, result.seconds, result.counts, result.explained, failures, result.notes)


def lost_item(item: Item, lost: Lost) -> ShardResult:
    """The result for an item that kept taking its worker down: one row of `failures`."""
    stage = "worker" if lost.stages == STAGES else "+".join(lost.stages)
    row = {
        "stage": stage,
        "item": item.image_id,
        "error": lost.error,
        "message": lost.message,
        "attempts": lost.attempts,
    }
    tables = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
    tables["failures"] = pa.Table.from_pylist([row], schema=FAILURES)
    return ShardResult(tables, {}, {"images": 0, "segments": 0, "failures": 1})


def totals(commits: Mapping[str, Commit]) -> dict[str, Any]:
    """The counts and worker seconds of all shards, and the first explained variances that one of them measured."""
    infos = [commit.info for _, commit in sorted(commits.items())]
    seconds: dict[str, float] = {}
    for info in infos:
        for stage, spent in info["seconds"].items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    names = ("images", "segments", "replayed", "features_cut")
    counts = {name: sum(info.get(name, 0) for info in infos) for name in names}
    explained: dict[str, float] = next(
        (info["explained_variance"] for info in infos if info.get("explained_variance")), {}
    )
    return {**counts, "seconds": seconds, "explained_variance": explained}


def feature_counts(config: RunConfig) -> dict[Site, int]:
    """Features per site, dead ones included, from the autoencoders' own configurations."""
    return {site: int(sae["n"]) for site, sae in configs(config.saes, config.generation.sites).items()}

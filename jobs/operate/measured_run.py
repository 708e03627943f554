"""What a run measured of itself, for the plan of another one: seconds a stage, bytes a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Effect
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.shards.groups import shards_of_group
from gazetteer.data.runs.shards.records import Commit
from gazetteer.diffusion.flops import ModelCost, model_cost
from gazetteer.jobs.config.fingerprint import differing, fingerprint_of
from gazetteer.jobs.config.schema import RunConfig


class Measured:
    """What committed shards, or groups of them, say of other shards of the same job."""

    def __init__(self, commits: Collection[Commit]) -> None:
        """commits: with at least one picture in them."""
        self.commits = commits
        self.images = sum(commit.info["images"] for commit in commits)
        self.shards = sum(len(shards_of_group(commit) or (commit.shard,)) for commit in commits)

    def each(self, name: str) -> float:
        """A count of the commits a picture."""
        return float(sum(commit.info[name] for commit in self.commits) / self.images)

    def seconds(self, images: int) -> dict[str, float]:
        """Worker seconds a stage of so many pictures."""
        spent: dict[str, float] = {}
        for commit in self.commits:
            for stage, value in commit.info["seconds"].items():
                spent[stage] = spent.get(stage, 0.0) + value / self.images * images
        return spent

    def spread(self) -> tuple[float, float]:
        """Seconds a picture of the quickest and slowest tenth of the shards, over those of all."""
        each = [
            sum(commit.info["seconds"].values()) / commit.info["images"]
            for commit in self.commits
            if commit.info["images"]
        ]
        low, high = np.quantile(each, (0.1, 0.9)) * self.images / max(sum(self.seconds(self.images).values()), 1e-9)
        return min(float(low), 1.0), max(float(high), 1.0)

    def bytes(self, images: int, shards: int, by_shard: Collection[str] = ("evidence", "failures")) -> dict[str, int]:
        """Bytes a table: of `by_shard`, which grow with shards, by shards; of the others by pictures."""
        total: dict[str, float] = {}
        for commit in self.commits:
            for table, part in commit.tables.items():
                scale = shards / self.shards if table in by_shard else images / self.images
                total[table] = total.get(table, 0.0) + part["bytes"] * scale
        return {table: round(value) for table, value in sorted(total.items())}


def measured(config: RunConfig, path: str) -> tuple[Measured, dict[str, Any]]:
    """The shards of a run, and its fingerprint.

    Raises:
        InputError: the run has no shard, took pictures over from another one, or its models or sites are others.
    """
    store = RunFolder(path)
    fingerprint = store.read_json("run.json") or {}
    measured = Measured(store.committed(drop=False).values() if fingerprint else ())
    if not measured.images:
        raise InputError(f"{path} holds no pictures to measure by; --like takes a run that gazetteer label made.")
    replayed = sum(commit.info.get("replayed", 0) for commit in measured.commits)
    if replayed:
        raise InputError(
            f"{path} took {replayed} of its {measured.images} pictures over from another run (--reuse): in them "
            "nothing was detected or cut out, so that its seconds are not those of the whole job; name that run with "
            "--like."
        )
    shaping = {Effect.PICTURES, Effect.CODES, Effect.SEGMENTS}
    others = set(differing(fingerprint_of(config), fingerprint, shaping)) - {"generation.steps", "generation.guidance"}
    if others:
        raise InputError(f"{path} was made with other models or sites; these differ: {', '.join(sorted(others))}.")
    return measured, fingerprint


def seconds_like(
    config: RunConfig, model: ModelCost, measured: Measured, fingerprint: dict[str, Any]
) -> dict[str, float]:
    """Worker seconds a stage; those of sampling grow with the denoiser's evaluations, of given pictures one a t."""
    if config.pictures.kind:
        scale = len(set(config.generation.t)) / max(1, len(set(fingerprint["generation.t"])))
        return {k: v * (scale if k == "generate" else 1.0) for k, v in measured.seconds(config.images).items()}
    steps, guidance = fingerprint["generation.steps"], fingerprint["generation.guidance"]
    then = dataclasses.replace(config.generation, guidance=guidance, branches=("cond",))
    calls = model_cost(config.model, steps, model.height, model.width).calls * model.branches(then)
    here = model.calls * model.branches(config.generation)
    return {k: v * (here / calls if k == "generate" else 1.0) for k, v in measured.seconds(config.images).items()}


def bytes_like(config: RunConfig, shards: int, measured: Measured, fingerprint: dict[str, Any]) -> dict[str, int]:
    """Bytes a table; with shards of another size evidence is taken by pictures, too much for larger ones."""
    same = fingerprint.get("shard_size", config.shard_size) == config.shard_size
    return measured.bytes(config.images, shards, ("evidence", "failures") if same else ("failures",))

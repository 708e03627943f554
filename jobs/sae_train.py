"""`gazetteer sae train`: capture every site in one generation pass, then train one autoencoder a site."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.activations import ActivationDataset, ActivationWriter
from data.digests import digest_folder
from data.errors import InputError
from data.prompts import Item, read_prompts, shards_of
from data.sites import Site
from diffusion.generate import GenerationConfig, Generator
from diffusion.load import ModelConfig, load_pipeline
from jobs.config import RunConfig
from jobs.execute import Executor
from jobs.fingerprint import fingerprint
from jobs.plan import make_items, picture_digest
from jobs.progress import Progress
from jobs.work import Job, Task
from sae.config import TrainConfig
from sae.train import train_sae


def train_site_saes(config: RunConfig, out: str | Path) -> list[dict[str, Any]]:
    """Train the autoencoders of every site of `config` into ``OUT/saes/<site>``; resumes what was begun.

    Activations are kept in ``OUT/activations`` until you delete them.

    Returns:
        one row a site: its name and held-out metrics.

    Raises:
        InputError: no `sae` section, or bad prompts, model or blocks.
    """
    if config.sae is None:
        raise InputError("The configuration has no sae section, which names the training prompts.")
    out = Path(out)
    sites = config.generation.sites
    prompts = read_prompts(config.sae.prompts.path, config.sae.prompts.column)
    repeated = [prompts[i % len(prompts)] for i in range(config.sae.images)]
    items = make_items(repeated, config.seed, picture_digest(fingerprint(config)))
    root = out / "activations"
    writer = ActivationWriter(root, sites)
    shards = [Job(s.id, s.items) for s in shards_of(items, config.shard_size) if not writer.finished(s.id)]
    done = len(items) - sum(len(job.items) for job in shards)
    progress = Progress("capture", len(items), done)

    def keep(job: Job, activations: dict[Site, np.ndarray]) -> None:
        writer.add(job.id, activations, [item.image_id for item in job.items])
        progress.add(len(job.items))

    with Executor(config) as executor:
        capture = partial(CaptureWorker, config.model, config.generation, config.threads)
        executor.run(Task(capture, _concatenate, _cannot_lose), shards, keep)
        progress.close()
        rows: list[dict[str, Any]] = []
        train = partial(TrainWorker, str(root), str(out / "saes"), config.sae.train, config.threads, config.model.path)
        executor.run(Task(train, _join_rows, _cannot_lose), [Job(s.slug, (s,)) for s in sites], _report(rows))
    return sorted(rows, key=lambda row: row["site"])


class CaptureWorker:
    """Generates pictures' latents and returns the dense updates of every site."""

    def __init__(self, model: ModelConfig, generation: GenerationConfig, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.generator = Generator(load_pipeline(model), generation)

    def run(self, items: Sequence[Item]) -> dict[Site, np.ndarray]:
        """float16 [pictures * cells, channels] per site, pictures in the order of `items`."""
        kept: dict[Site, list[np.ndarray]] = {}

        def on_site(site: Site, x: torch.Tensor, height: int, width: int) -> None:
            kept.setdefault(site, []).append(x.flatten(0, 1).to(torch.float16).cpu().numpy())

        for item in items:
            self.generator.sample([item.prompt], [item.seed], on_site, decode=False)
        return {site: np.concatenate(parts) for site, parts in kept.items()}


@dataclass
class TrainWorker:
    """Trains the autoencoder of one site from its activation shards."""

    activations: str
    saes: str
    config: TrainConfig
    threads: int
    model: str

    def run(self, items: Sequence[Site]) -> list[dict[str, Any]]:
        """Train the sites given; returns their held-out metrics."""
        if self.threads:
            torch.set_num_threads(self.threads)
        digest = digest_folder(self.model) if Path(self.model).exists() else self.model
        return [self._train(site, digest) for site in items]

    def _train(self, site: Site, digest: str) -> dict[str, Any]:
        folder = Path(self.saes) / site.slug
        train = ActivationDataset(self.activations, site, split="train")
        heldout = ActivationDataset(self.activations, site, split="heldout")
        result = train_sae(
            train,
            train.d,
            self.config,
            folder,
            site=site,
            heldout=heldout.in_order(4096),
            metadata={"model_digest": digest},
            dtype=torch.float16,
        )
        assert result.metrics is not None
        return {"site": site.slug, **result.metrics.as_dict()}


def _report(rows: list[dict[str, Any]]) -> Any:
    def done(_: Job, result: list[dict[str, Any]]) -> None:
        rows.extend(result)
        print(json.dumps(result[0]), file=sys.stderr, flush=True)

    return done


def _concatenate(parts: Sequence[dict[Site, np.ndarray]]) -> dict[Site, np.ndarray]:
    return {site: np.concatenate([part[site] for part in parts]) for site in parts[0]}


def _join_rows(parts: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for part in parts for row in part]


def _cannot_lose(item: Any, message: str, attempts: int) -> Any:
    raise InputError(f"{item} could not be processed in {attempts} attempts: {message}")

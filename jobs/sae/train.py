"""`gazetteer sae train`: capture every site in one generation pass, train one autoencoder a site, say how good it is.

Either the activations are kept on disk and each site is trained from them (`_from_disk`), or all sites are trained
while the pictures are sampled (`gazetteer.jobs.sae.stream`). Both end in the same folders and the same report.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.files.own_files import claim_folder, require_own_folder, says
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.activation_dataset import ActivationDataset
from gazetteer.data.inputs.activations import ActivationWriter
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.inputs.prompts import Item, shards_of
from gazetteer.data.storage.local import LocalFiles, make_folder
from gazetteer.data.storage.runlock import run_lock
from gazetteer.diffusion.blocks import check_model
from gazetteer.diffusion.config.generation import check_moments
from gazetteer.jobs.config.fingerprint import fingerprint_of, picture_digest
from gazetteer.jobs.config.groups import SaeConfig
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.sources import Source, checking, sources
from gazetteer.jobs.executors.task import Job, Lost, Task
from gazetteer.jobs.label.progress.bars import Progress
from gazetteer.jobs.label.shards import make_items
from gazetteer.jobs.sae.capture import Captured, CaptureWorker, cannot_lose, concatenate, model_digest
from gazetteer.jobs.sae.recover import recover_losses
from gazetteer.jobs.sae.stream import expect_no_words, train_from_stream
from gazetteer.jobs.sae.trainers import Failures, failed
from gazetteer.labeling.pipeline.checks import check_devices
from gazetteer.sae.report.report import report_files, write_report
from gazetteer.sae.training.tensorboard import TensorBoardWriter
from gazetteer.sae.training.train import require_settings, train_sae


def train_site_saes(config: RunConfig, out: str | Path) -> list[dict[str, Any]]:
    """Train the autoencoders of every site of `config` into ``OUT/saes/<site>``; resumes what was begun.

    Activations, where they go to disk, are kept in ``OUT/activations`` until you delete them. The report of the set
    is written beside the autoencoders (`gazetteer.sae.report.report`).

    Returns:
        one row a site: its name and held-out metrics.

    Raises:
        InputError: no `sae` section, bad prompts, model or blocks, or a folder of somebody else's files.
        LockedError: another process trains into `out`.
    """
    if config.sae is None:
        raise InputError("The configuration has no sae section, which names the training prompts.")
    if config.sae.stream:
        expect_no_words(config.generation)
    check_moments(config.generation)
    out = Path(out)
    begun = says(out / "activations" / "sites.json", "format", "sites")
    begun = begun or any((out / "saes" / site.slug).is_dir() for site in config.generation.sites)
    require_own_folder(out, begun)
    report_files(out / "saes")
    prompts = read_prompts(config.sae.prompts)
    if not config.ray_address or config.executor == "serial":
        check_devices({"model.device": config.model.device, "sae.device": config.sae.device})
        check_model(config.model, config.generation)
    repeated = [prompts[i % len(prompts)] for i in range(config.sae.images)]
    if len(set(repeated)) < len(repeated):
        print(
            f"sae train: {len(repeated)} pictures of {len(set(repeated))} prompts: held-out ones are of other noise, "
            "and their prompts were trained on too",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    fingerprint = fingerprint_of(config)
    items, model = (
        make_items(repeated, config.seed, picture_digest(fingerprint)),
        sources(config, fingerprint, ("model",)),
    )
    if config.sae.tensorboard:
        TensorBoardWriter(out / "tensorboard").close()  # a missing package is said now, not after the pictures
    train = train_from_stream if config.sae.stream else _from_disk
    with write_errors(str(out), resumes=True):
        make_folder(out)
        claim_folder(out, begun)
    companions = min(max(1, config.sae.workers), len(config.generation.sites))
    beside = config.sae.pool(config.threads, companions) if config.sae.stream else None
    with run_lock(LocalFiles(out)) as still_mine, Executor(config, beside=beside) as executor:
        failures = train(config, config.sae, items, out, executor, model)
        still_mine()
        if failures:
            raise failed(failures, len(config.generation.sites))
        recover_losses(config, config.sae, items, out, executor, model)
        rows = write_report(out / "saes").to_pylist()
    slugs = {site.slug for site in config.generation.sites}
    named = [{"site": Site(**{name: row[name] for name in SITE_COLUMNS}).slug, **row} for row in rows]
    return [row for row in named if row["site"] in slugs]


def _from_disk(
    config: RunConfig, sae: SaeConfig, items: list[Item], out: Path, executor: Executor, model: tuple[Source, ...]
) -> Failures:
    """Capture what is missing in ``OUT/activations``, then train what is not trained, several sites at once on Ray.

    Returns:
        why sites could not be trained; the others are finished.

    Raises:
        InputError: autoencoders or activations of other settings lie there, which is said before anything is captured.
    """
    sites = config.generation.sites
    stated = _stated(config, model, items)
    for site in sites:
        require_settings(out / "saes" / site.slug, sae.train, site, stated)
    root = out / "activations"
    writer = ActivationWriter(root, sites)
    own = shards_of(items, config.shard_size)
    shards = [Job(s.id, s.items) for s in own if not writer.finished(s.id)]
    done = len(items) - sum(len(job.items) for job in shards)
    build = partial(CaptureWorker, config.model, config.generation, config.threads, config.batch_size)
    capture = checking(build, model)
    with Progress("capture", len(items), done) as progress:

        def keep(job: Job, captured: Captured) -> None:
            writer.add(job.id, captured.vectors, [item.image_id for item in job.items], captured.cells)
            progress.add(len(job.items))

        executor.run(Task(capture, concatenate, cannot_lose), shards, keep)
    names = frozenset(shard.id for shard in own)  # others that lie there are of other pictures
    train = partial(TrainWorker, str(out), sae, config.threads, stated, names)
    failures: Failures = {}

    def trained(job: Job, rows: list[Trained]) -> None:
        for row in rows:
            if isinstance(row, GazetteerError):
                failures[job.id] = row
            else:
                print(json.dumps(row), file=sys.stderr, flush=True)

    pool = sae.pool(config.threads, min(sae.workers, len(sites)))
    executor.run(Task(train, _join, _lost, pool=pool), [Job(s.slug, (s,)) for s in sites], trained)
    return failures


def _stated(config: RunConfig, model: tuple[Source, ...], items: Sequence[Item]) -> dict[str, str]:
    """What ``config.json`` of an autoencoder says of what it was trained on."""
    pictures = digest_json(sorted({item.image_id for item in items}))
    return {"model_digest": model_digest(config, model), "pictures": pictures}


Trained = dict[str, Any] | GazetteerError
"""A site's name and held-out metrics, or why it could not be trained."""


@dataclass
class TrainWorker:
    """Trains the autoencoder of one site from activation shards; `stated`: of what they are (`_stated`)."""

    out: str
    sae: SaeConfig
    threads: int
    stated: dict[str, str]
    shards: frozenset[str]

    def run(self, items: Sequence[Site]) -> list[Trained]:
        """Train the sites given; what fails at one is its result."""
        use_threads(self.threads)
        return [self._outcome(site) for site in items]

    def _outcome(self, site: Site) -> Trained:
        try:
            return self._train(site)
        except GazetteerError as error:
            return error

    def _train(self, site: Site) -> dict[str, Any]:
        activations, out = Path(self.out) / "activations", Path(self.out)
        train = ActivationDataset(activations, site, split="train", shards=self.shards)
        heldout = ActivationDataset(activations, site, split="heldout", shards=self.shards)
        writer = TensorBoardWriter(out / "tensorboard") if self.sae.tensorboard else None
        result = train_sae(
            train,
            train.d,
            self.sae.train,
            out / "saes" / site.slug,
            site=site,
            heldout=heldout.in_order(4096),
            metadata=self.stated,
            dtype=torch.float16,
            device=self.sae.device,
            on_log=partial(writer.add, site) if writer else None,
        )
        if writer:
            writer.close()
        assert result.metrics is not None
        return {"site": site.slug, **result.metrics.as_dict()}


def _lost(site: Site, lost: Lost) -> list[Trained]:
    said = f"Training the SAE at {site.slug} took its process down {lost.attempts} times ({lost.error}: {lost.message})"
    return [GazetteerError(f"{said}; run the same command again: it resumes.")]


def _join(parts: Any) -> list[Trained]:
    return [row for part in parts for row in part]

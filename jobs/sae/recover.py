"""Loss recovered: what the autoencoders of a set are worth to the model they listen to, on held-out pictures."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.activation_dataset import heldout_images
from gazetteer.data.inputs.prompts import Item
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import device_of
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.diffusion.noise_error import MEASURED, NoiseErrors, mean_errors, measurable, noise_errors
from gazetteer.jobs.config.groups import SaeConfig
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.sources import Source, checking
from gazetteer.jobs.executors.task import Job, Task
from gazetteer.jobs.label.progress.bars import Progress
from gazetteer.jobs.sae.capture import cannot_lose
from gazetteer.sae.model.checkpoint import load_site_saes
from gazetteer.sae.model.files import read_config, update_config
from gazetteer.sae.training.metrics import loss_recovered

Errors = dict[Site, NoiseErrors]


def recover_losses(
    config: RunConfig, sae: SaeConfig, items: Sequence[Item], out: Path, executor: Executor, model: tuple[Source, ...]
) -> None:
    """Measure on the first ``sae.recover`` held-out pictures and add the numbers to each ``config.json``.

    Sites that were measured on as many pictures before are left alone; with nothing to do no model is loaded.

    Args:
        model: what the workers have to find the model to be.

    Raises:
        InputError: a model that predicts neither noise nor velocity.
    """
    sites = [site for site in config.generation.sites if measurable(site.port)]
    if sae.recover and len(sites) < len(config.generation.sites):
        _say(f"for {len(config.generation.sites) - len(sites)} sites of inputs or text; it is of {MEASURED}")
    ids = sorted(heldout_images(sorted({item.image_id for item in items})))[: sae.recover]
    by_id = {item.image_id: item for item in items}
    root = out / "saes"
    todo = [site for site in sites if _pictures(root / site.slug) != len(ids)]
    if not ids or not todo:
        return
    errors_of: dict[str, Errors] = {}
    build = partial(RecoverWorker, config.model, config.generation, str(root), tuple(todo), config.threads)
    jobs = [Job(image_id, (by_id[image_id],)) for image_id in ids]
    task = Task(checking(build, model), lambda parts: [row for part in parts for row in part], cannot_lose)
    with Progress("loss recovered", len(ids)) as progress:

        def keep(job: Job, result: list[Errors]) -> None:
            errors_of[job.id] = result[0]
            progress.add(1)

        executor.run(task, jobs, keep)
    for site in todo:
        errors = mean_errors([errors_of[image_id][site] for image_id in ids])
        metrics = read_config(root / site.slug).get("metrics") or {}
        update_config(root / site.slug, {"metrics": metrics | as_metrics(errors) | {"noise_pictures": len(ids)}})


def _say(what: str) -> None:
    print(f"loss recovered: not measured {what}", file=sys.stderr, flush=True)


def as_metrics(errors: NoiseErrors) -> dict[str, float | None]:
    """The errors and what they say, by the names of `sae.training.metrics.Metrics`; None where it cannot be said."""
    fractions = {"loss_recovered": errors.zero, "loss_recovered_mean": errors.mean}
    recovered = {name: _recovered(errors.plain, ablated, errors.sae) for name, ablated in fractions.items()}
    named = {
        f"noise_error_{name}" if name != "plain" else "noise_error": value for name, value in asdict(errors).items()
    }
    return recovered | {name: None if math.isnan(value) else value for name, value in named.items()}


@dataclass
class RecoverWorker:
    """Measures pictures with the autoencoders of some sites in place."""

    model: ModelConfig
    generation: GenerationConfig
    saes: str
    sites: tuple[Site, ...]
    threads: int
    _ready: Any = field(default=None, init=False)

    def run(self, items: Sequence[Item]) -> list[Errors]:
        """The errors of every site on each picture."""
        if self._ready is None:
            use_threads(self.threads)
            pipe: Any = load_pipeline(self.model)
            saes = load_site_saes(self.saes, self.sites, device_of(pipe))
            stated = {site: read_config(Path(self.saes) / site.slug).get("mean") for site in self.sites}
            means = {site: torch.tensor(mean) for site, mean in stated.items() if mean}
            self._ready = Generator(pipe, self.generation), saes, means
        generator, saes, means = self._ready
        return [noise_errors(generator, item.prompt, item.seed, saes, means) for item in items]


def _pictures(folder: Path) -> int:
    """On how many pictures a site was measured before."""
    return int((read_config(folder).get("metrics") or {}).get("noise_pictures") or 0)


def _recovered(plain: float, ablated: float, sae: float) -> float | None:
    try:
        return None if math.isnan(ablated) else loss_recovered(plain, ablated, sae)
    except InputError:  # the ablation did no harm: there is nothing to recover
        return None

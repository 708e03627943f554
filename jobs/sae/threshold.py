"""`gazetteer sae threshold`: give BatchTopK autoencoders whose files have no threshold one, as copies of our format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.diffusion.blocks import check_model
from gazetteer.diffusion.config.generation import check_moments
from gazetteer.jobs.config.fingerprint import fingerprint_of, picture_digest
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.sources import checking, sources
from gazetteer.jobs.executors.task import Job, Task
from gazetteer.jobs.label.shards import make_items
from gazetteer.jobs.sae.capture import Captured, CaptureWorker, cannot_lose, concatenate
from gazetteer.labeling.pipeline.checks import check_devices
from gazetteer.sae.model.checkpoint import load_site_saes
from gazetteer.sae.model.patterns import ANY
from gazetteer.sae.model.sources import configs
from gazetteer.sae.model.threshold import LACKS, ORIGIN, batch_threshold, held_out_l0, with_threshold

PICTURES = 4
PARTS = 8
"""Of the pictures at most, each of which is left out of the estimate in turn."""


def add_thresholds(
    config: RunConfig, out: str | Path, pictures: int | None = None, threshold: float | None = None
) -> list[dict[str, Any]]:
    """Write copies with a threshold into ``OUT/<site>``, of the sites of `config` whose autoencoder lacks one.

    Args:
        pictures: of the first prompts, on whose activations it is estimated, for each site by itself; None: `PICTURES`.
        threshold: used as it stands, and nothing is sampled.

    Returns:
        one row a site: its name and threshold, and ``l0``, the features a vector then uses on average, on pictures
        whose share of the estimate is left out (None where fewer than two were sampled).

    Raises:
        InputError: no autoencoder lacks a threshold, `out` is not empty, or what `gazetteer label` refuses.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already and not empty; name another folder.")
    if threshold is not None and not 0 <= threshold < float("inf"):
        raise InputError(f"--threshold must be a number from 0 on, not {threshold}.")
    if threshold is not None and pictures is not None:
        raise InputError(
            "--threshold is taken as it stands, and --pictures says on how many one is estimated; name one."
        )
    pictures = PICTURES if pictures is None else pictures
    if pictures < 1:
        raise InputError(f"--pictures must be at least 1, not {pictures}.")
    stated = configs(config.saes, config.generation.sites)
    sites = [site for site in config.generation.sites if stated[site].get(LACKS)]
    if not sites:
        raise InputError(f"No autoencoder of {config.saes} lacks a BatchTopK threshold; there is nothing to estimate.")
    saes = load_site_saes(config.saes, sites, signal=config.sae_check.signal)
    captured = _captured(config, pictures) if threshold is None else None
    origin = f"estimated on {pictures} pictures" if threshold is None else "stated by its user"
    rows = []
    for site in sites:
        parts = [] if captured is None else captured(site)
        value = batch_threshold(saes[site], torch.cat(parts)) if threshold is None else threshold
        sae = with_threshold(saes[site], value)
        used = held_out_l0(saes[site], parts)
        sae.signal = site.signal
        kept = {key: stated[site].get(key) for key in ("original", "differs")}
        sae.save_pretrained(out / site.slug, {"site": site, ORIGIN: origin, **kept})
        rows.append({"site": site.slug, "threshold": value, "l0": used})
    return rows


def with_copies(config: RunConfig, out: str | Path) -> str | dict[str, str]:
    """The key ``saes`` with the copies in `out`: that folder, or a mapping where other sites keep what they have."""
    copied = [site.slug for site in config.generation.sites if (Path(out) / site.slug).exists()]
    if len(copied) == len(config.generation.sites):
        return str(out)
    before = dict(config.saes) if isinstance(config.saes, Mapping) else {ANY: config.saes}
    return {**before, **{slug: str(Path(out) / slug) for slug in copied}}


def _captured(config: RunConfig, pictures: int) -> Callable[[Site], list[Tensor]]:
    """By site the vectors float32 [vectors, d] of pictures of the first prompts, in at most `PARTS` parts.

    The pictures of one prompt stay in one part, unless all are of one. What was captured is held in half precision, and
    a site's is widened when it is asked for.
    """
    check_moments(config.generation)
    if not config.ray_address or config.executor == "serial":
        check_devices({"model.device": config.model.device})
        check_model(config.model, config.generation)
    prompts = read_prompts(config.prompts)
    made_with = fingerprint_of(config)
    items = make_items([prompts[i % len(prompts)] for i in range(pictures)], config.seed, picture_digest(made_with))
    build = partial(CaptureWorker, config.model, config.generation, config.threads, config.batch_size)
    first: list[Captured] = []
    task = Task(checking(build, sources(config, made_with, ("model",))), concatenate, cannot_lose)
    with Executor(config) as executor:
        executor.run(task, [Job("first", tuple(items))], lambda _, captured: first.append(captured))
    apart = len(prompts) if min(len(prompts), pictures) > 1 else pictures
    vectors, cells = first[0]

    def parts_of(site: Site) -> list[Tensor]:
        own = torch.from_numpy(vectors[site]).split(cells[site])
        numbers = [number % apart % PARTS for number in range(len(own))]
        parts = ([x for x, at in zip(own, numbers, strict=True) if at == part] for part in sorted(set(numbers)))
        return [torch.cat(part).float() for part in parts]

    return parts_of

"""`gazetteer steer`: draw pictures with and without edits; `gazetteer steer evaluate`: measure what edits do."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data.edits import Edit, read_edits
from data.errors import InputError
from data.prompts import read_prompts, split_of
from data.sites import Site
from data.store import RunFolder
from diffusion.generate import Generator
from diffusion.load import load_pipeline
from diffusion.steer import steer
from jobs.config import RunConfig
from labeling.detectors import load_detector
from labeling.segmenters import load_segmenter
from labeling.steer_bench import Bench
from labeling.steer_evaluation import Evaluation, Judge
from labeling.steering import resolve, run_sites
from labeling.vocabulary import Vocabulary
from sae.autoencoder import SparseAutoencoder
from sae.checkpoint import load_site_saes


def steer_pictures(
    config: RunConfig, edit_file: str | Path, run: str | None, prompts: Sequence[str], seed: int, out: str | Path
) -> dict[str, Any]:
    """Draw every prompt without and with the edits of a file into ``OUT/<i>-plain.png`` and ``OUT/<i>-edited.png``.

    The i-th picture has the seed `seed` + i. ``OUT/steer.json`` holds prompts, seeds and the edits with the features
    they came to; every edited picture carries its own edits in its PNG text under the key ``gazetteer``.

    Args:
        run: the labelled run that turns concepts and words into features; None when the edits name features.

    Raises:
        InputError: a bad edit, run, model or autoencoder, or a picture number beyond the prompts.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    edits = _resolved(read_edits(edit_file), run)
    beyond = [i for edit in edits for i in edit.images if i >= len(prompts)]
    if beyond:
        raise InputError(f"{edit_file} names picture {beyond[0]} (from 0), but there are {len(prompts)} prompts.")
    generator = Generator(load_pipeline(config.model), config.generation)
    sites = {target.site for edit in edits for target in edit.targets if target.features}
    saes = load_site_saes(config.saes, sites, device=config.model.device)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, prompt in enumerate(prompts):
        mine = [replace(edit, images=()) for edit in edits if not edit.images or i in edit.images]
        plain, edited = _draw(generator, prompt, seed + i, [], saes), _draw(generator, prompt, seed + i, mine, saes)
        record = {"prompt": prompt, "seed": seed + i, "edits": [edit.as_dict() for edit in mine]}
        (out / f"{i}-plain.png").write_bytes(_png(plain, {**record, "edits": []}))
        (out / f"{i}-edited.png").write_bytes(_png(edited, record))
        change = float(np.abs(plain.astype(int) - edited.astype(int)).mean() / 255)
        rows.append({"prompt": prompt, "seed": seed + i, "edits": [e.digest for e in mine], "change": round(change, 4)})
    result = {"pictures": rows, "edits": {edit.digest: edit.as_dict() for edit in edits}}
    (out / "steer.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return {"out": str(out), **result}


def evaluate_steering(config: RunConfig, run: str, quick: bool = False) -> dict[str, Any]:
    """Measure spatial and global edits on held-out prompts with the run's own detector and segmenter.

    Raises:
        InputError: not a finished run, or a model, autoencoder or judge that cannot be loaded.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    folder, settings = RunFolder(run), config.steer.quick() if quick else config.steer
    judge = load_judge(settings.judge, settings.words) if settings.judge and settings.words else None
    vocabulary = Vocabulary(config.vocabulary)
    prompts = [p for p in read_prompts(config.prompts.path, config.prompts.column)
               if split_of(p, config.heldout) == "heldout"]  # fmt: skip
    saes = load_site_saes(config.saes, run_sites(folder), device=config.model.device)
    bench = Bench(
        Generator(load_pipeline(config.model), config.generation), saes, load_detector(config.detector),
        load_segmenter(config.segmenter), config.vocabulary.concepts, config.batch_size,
    )  # fmt: skip
    evaluation = Evaluation(
        bench, folder, settings, vocabulary, prompts, judge, config.seed,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    return evaluation.run()


def _resolved(edits: Sequence[Edit], run: str | None) -> tuple[Edit, ...]:
    if all(edit.targets for edit in edits):
        return tuple(edits)
    if run is None:
        raise InputError("Edits that name concepts or words need --run, a finished labelling run.")
    return resolve(edits, run)


def _draw(
    generator: Generator, prompt: str, seed: int, edits: Sequence[Edit], saes: dict[Site, SparseAutoencoder]
) -> NDArray[np.uint8]:
    with steer(generator.pipe, edits, saes):
        made = generator.sample([prompt], [seed], lambda *_: None)
    assert made is not None
    picture: NDArray[np.uint8] = made[0]
    return picture


def _png(pixels: NDArray[np.uint8], record: dict[str, Any]) -> bytes:
    text = PngInfo()
    text.add_text("gazetteer", json.dumps(record, sort_keys=True))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()


def load_judge(name: str, words: Sequence[str]) -> Judge:
    """A judge of looks, named ``module:function``; raises InputError if it cannot be loaded or lacks a word."""
    module, _, function = name.partition(":")
    try:
        judge: Judge = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise InputError(f"steer.judge {name!r} cannot be loaded as module:function: {error}") from error
    missing = sorted(set(words) - set(judge.labels))
    if missing:
        raise InputError(f"steer.judge cannot read {missing[0]!r}; it reads {', '.join(judge.labels)}.")
    return judge

"""`gazetteer plan`: what a configuration costs before any of it is spent.

Counts (pictures, evaluations, calls) follow from the configuration. Operations are counted on the models' real
modules without their weights (`diffusion.flops`, `labeling.pipeline.flops`). Seconds come from a finished run of the
same models, or from a device's stated rate; bytes from that run, or from what the embedded models' run measured.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.core.terminal import print_table
from gazetteer.data.inputs.given.open import open_given
from gazetteer.diffusion.config.generation import check_moments
from gazetteer.diffusion.flops import ModelCost, model_cost
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.label.shards import read_pool
from gazetteer.jobs.operate.measured_run import bytes_like, measured, seconds_like
from gazetteer.jobs.operate.rates import RANGE, Rates, seconds_of
from gazetteer.jobs.operate.tables_cost import tables_cost
from gazetteer.labeling.detect.vocabulary_check import check_concepts
from gazetteer.labeling.pipeline.checks import check_names, check_saes, check_widths
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.sae.model.autoencoder import SAEConfig
from gazetteer.sae.model.sources import yet_to_be_made

VALUE_BYTES, INDEX_SHARE = 1.65, 1.03
"""Bytes of a code's value, and of its feature relative to log2(features) bits, after zstd (runs/scenes)."""
UNUSED_BYTES = 0.25
"""Bytes of a slot that BatchTopK leaves unused: 0.1 in runs/scenes, 0.4 in small runs of a few coarse steps."""
DRAWN_BYTES, PIXEL_BYTES, DRAWN_SIDE = 1.14, 1.9, 128
"""Bytes of a PNG a pixel: of drawn pictures of at most 128 px (runs/scenes), and of photographs (1.6 to 1.9 in three of
skimage.data, 300 to 512 px)."""
SEGMENTS, SEGMENT_BYTES = 5.8, 290.0
"""Segments a picture, and bytes of one at 128 px; outlines grow with the side (runs/scenes)."""
ROW_BYTES = 8.6
"""Bytes of a row of evidence (runs/scenes)."""
PART_BYTES = 9000
"""Bytes of a part without rows: schema and provenance."""
CAPTION_TOKENS = 16
"""Tokens of a caption made of one prompt's nouns."""


def plan(config: RunConfig, rates: Rates) -> dict[str, Any]:
    """Counts, operations, bytes, seconds, device hours and money of `gazetteer label` with this configuration.

    Returns:
        ``images``, ``shards``, ``sites``, ``features``, ``counts``, ``flops`` (stage -> operations), ``bytes``
        (table -> bytes), ``seconds`` (stage -> seconds of one device; None without a rate), ``device_hours``,
        ``hours`` (over all devices), ``hours_range`` (lowest, highest that may be expected), ``money``, ``tables``
        (seconds of reducing and compacting: `tables_cost`), ``sae`` (the same for the autoencoders' training, or
        None), ``moments`` (t -> that of the step that is heard), and ``assumed``: what was assumed, a sentence each.

    Raises:
        InputError: configurations that cannot be read, prompts or a vocabulary that `gazetteer label` refuses, a run of
            other models, or a rate that nothing is priced by.
    """
    _check_as_label_does(config)
    model = model_cost(config.model, config.generation.steps, config.generation.height, config.generation.width)
    model.check(config.generation)
    reference = measured(config, rates.like) if rates.like else None
    assumed = _two_measures(config, rates)
    if not _readable(config):
        assumed.append(f"prompts that can be read: {config.prompts.path} is not on this machine")
    segments = reference[0].each("segments") if reference else SEGMENTS
    if not reference:
        assumed.append(f"{SEGMENTS} segments a picture, and the embedded models' bytes a pixel, code and segment")
        assumed.append("evidence has a row for every feature and concept in every shard, which is at most what it has")
    calls, given = model.calls, open_given(config.pictures, config.seed) if config.pictures.kind else None
    if given is not None:  # one call of the denoiser at every t
        config = dataclasses.replace(config, images=min(config.images, len(given)))
        calls = len(config.generation.t)
        assumed.append("pictures are given: nothing is detected or cut out, and encoding one costs what decoding does")
    captions = _captions(config, assumed) if given is None else []
    saes = _saes(config, model, assumed)
    if model.estimated:
        assumed.append("operations of the denoiser from the weights of its blocks, as they cannot be counted")
    if TEXT in config.generation.streams:
        assumed.append(f"text streams of {model.words} tokens a prompt, the most that the model reads")
    branches, images = model.branches(config.generation), config.images
    encode = sum(2 * _cells(model, site) * int(sae["d"]) * int(sae["n"]) for site, sae in saes.items())
    flops = {
        "generate": images * (branches * (calls * model.denoiser + model.text) + model.decode + encode),
        **_finding(config, model, captions, None if given is not None else segments),
    }
    seconds = seconds_like(config, model, *reference) if reference else seconds_of(flops, rates.tflops)
    shards = math.ceil(images / config.shard_size)
    sizes = bytes_like(config, shards, *reference) if reference else _bytes(config, model, saes, shards)
    return {
        "images": images,
        "shards": shards,
        "sites": len(saes),
        "features": sum(int(sae["n"]) for sae in saes.values()),
        "counts": _counts(images, calls, branches, len(captions), None if given is not None else segments),
        "flops": flops,
        "bytes": sizes,
        "seconds": seconds,
        **_hours(seconds, rates, reference[0].spread() if reference else RANGE),
        "tables": _tables(config, model, saes, sum(sizes.values()), rates.like),
        "sae": _sae(config, model, rates) if config.sae else None,
        "moments": config.generation.moments,
        "assumed": assumed,
    }


def _check_as_label_does(config: RunConfig) -> None:
    """Refuse moments, names, prompts and words that `gazetteer label` would: they are not worth a price."""
    check_moments(config.generation)
    if _readable(config):
        read_pool(config)
        vocabulary = check_names(config.stages)
    else:
        vocabulary = Vocabulary(config.vocabulary)
    if not config.pictures.kind:
        check_concepts(config.detector, vocabulary.concepts)


def _readable(config: RunConfig) -> bool:
    """Whether the prompts can be read here: a cost may be asked for before they are there, or from where none are."""
    return bool(config.pictures.kind) or Path(config.prompts.path).exists()


def _two_measures(config: RunConfig, rates: Rates) -> list[str]:
    """What is assumed where a run and a rate are named; InputError where the rate would price nothing."""
    if not rates.like or not rates.tflops:
        return []
    if config.sae is None:
        raise InputError(
            "--like takes the hours from the run, and without sae in the configuration nothing is left that --device "
            "or --tflops would price; leave one of them out."
        )
    return [f"hours of label are those of {rates.like}; the rate of --device or --tflops is for sae train alone"]


def _hours(seconds: dict[str, float] | None, rates: Rates, factors: tuple[float, float]) -> dict[str, Any]:
    """Device hours and money of so many seconds a stage, and hours over all devices, with the range by `factors`."""
    if seconds is None:
        return {"device_hours": None, "hours": None, "hours_range": None, "money": None}
    hours = sum(seconds.values()) / 3600
    each = hours / rates.devices
    money = hours * rates.price if rates.price else None
    return {"device_hours": hours, "hours": each, "hours_range": [each * factor for factor in factors], "money": money}


def _tables(
    config: RunConfig, model: ModelCost, saes: dict[Any, dict[str, Any]], size: int, like: str
) -> dict[str, Any]:
    """Cost of the final tables, and of putting parts of `size` bytes together (`tables_cost`)."""
    slots = {site: config.images * _cells(model, site) * _slots(sae) for site, sae in saes.items()}
    features = {site: int(sae["n"]) for site, sae in saes.items()}
    concepts = max(1, len(Vocabulary(config.vocabulary).base))
    return tables_cost(slots, features, concepts, config.images, size, like)


def _finding(config: RunConfig, model: ModelCost, captions: list[int], segments: float | None) -> dict[str, int]:
    """Operations of detecting, and of cutting out so many `segments` a picture."""
    from gazetteer.labeling.pipeline.flops import detector_flops, segmenter_flops

    detect = round(detector_flops(config.detector, model.height, model.width, captions)) if captions else 0
    segment = 0 if segments is None else sum(segmenter_flops(config.segmenter, max(1, round(segments))))
    return {"detect": config.images * detect, "segment": config.images * segment}


def _counts(images: int, calls: int, branches: int, captions: int, segments: float | None) -> dict[str, int]:
    """Calls of the models, and boxes, for so many pictures; `segments` is None where nothing is cut out."""
    return {
        "denoiser_calls": images * calls,
        "denoiser_evaluations": images * calls * branches,
        "detector_calls": images * captions,
        "segmenter_calls": 0 if segments is None else images,
        "boxes": round(images * (segments or 0.0)),
    }


def _cells(model: ModelCost, site: Site) -> int:
    """Cells of the picture, or tokens of the prompt, at a site."""
    height, width, _ = model.find(site.block)
    return model.words if site.stream == TEXT else height * width


def _saes(config: RunConfig, model: ModelCost, assumed: list[str]) -> dict[Any, dict[str, Any]]:
    """Every site's d, n and k: of the autoencoders that are there, or as `gazetteer sae train` will make them."""
    sites = config.generation.sites
    if config.sae is None or not yet_to_be_made(config.saes, sites):
        sites_checked = check_saes(config.saes, sites, config.sae_check.signal)
        check_widths(config.saes, sites_checked, {site.block: model.find(site.block)[2] for site in sites})
        return sites_checked
    assumed.append(f"autoencoders as sae.train makes them, for {config.saes} has none yet")
    shapes = {site: config.sae.train.shape(model.find(site.block)[2]) for site in sites}
    return {site: {"d": shape.d, "n": shape.n, "k": shape.k, "slots": shape.slots} for site, shape in shapes.items()}


def _slots(sae: dict[str, Any]) -> int:
    """Slots a cell of the codes, of an autoencoder's configuration; BatchTopK leaves some unused."""
    shape = SAEConfig(int(sae["d"]), int(sae["n"]), int(sae["k"]), bool(sae.get("batch_topk")), sae.get("max_k"))
    return int(sae.get("slots", shape.slots))


def _captions(config: RunConfig, assumed: list[str]) -> list[int]:
    """Tokens of every caption a picture is asked through."""
    from gazetteer.labeling.pipeline.flops import caption_tokens

    vocabulary = Vocabulary(config.vocabulary)
    lengths = caption_tokens(config.detector, vocabulary.captions(vocabulary.base))
    if config.vocabulary.ask != "all":
        lengths.append(CAPTION_TOKENS)
        assumed.append(f"one caption of {CAPTION_TOKENS} tokens a picture for what its prompt or picture names")
    return lengths


def _bytes(config: RunConfig, model: ModelCost, saes: dict[Any, dict[str, Any]], shards: int) -> dict[str, int]:
    """Bytes of the tables by what the embedded models' run measured; evidence is an upper bound."""
    codes = 0.0
    for site, sae in saes.items():
        used = VALUE_BYTES + INDEX_SHARE * math.log2(int(sae["n"])) / 8
        codes += _cells(model, site) * (int(sae["k"]) * used + (_slots(sae) - int(sae["k"])) * UNUSED_BYTES)
    concepts = max(1.0, len(Vocabulary(config.vocabulary).base) or SEGMENTS)
    present = min(concepts, SEGMENTS * config.shard_size)
    rows = sum(int(sae["n"]) for sae in saes.values()) * (1 + present)  # every feature with every concept
    side = math.sqrt(model.height * model.width) / 128
    pixel = DRAWN_BYTES if max(model.height, model.width) <= DRAWN_SIDE else PIXEL_BYTES
    return {
        "images": round(config.images * pixel * model.height * model.width + shards * PART_BYTES),
        "codes": round(config.images * codes + shards * PART_BYTES),
        "segments": round(config.images * SEGMENTS * SEGMENT_BYTES * side + shards * PART_BYTES),
        "evidence": round(shards * (rows * ROW_BYTES + PART_BYTES)),
        "failures": shards * PART_BYTES,
    }


def _sae(config: RunConfig, model: ModelCost, rates: Rates) -> dict[str, Any]:
    """Cost of `gazetteer sae train`: sampling without decoding, and 4 d n operations a vector and site."""
    assert config.sae is not None
    sae, train = config.sae, config.sae.train
    training = stored = 0
    for site in config.generation.sites:
        cells, d = _cells(model, site), model.find(site.block)[2]
        n = train.n or d * train.expansion
        vectors = train.steps * train.batch_size if train.steps else sae.images * cells * train.epochs
        training += 4 * d * n * vectors
        stored += 0 if sae.stream else sae.images * cells * d * 2
    sampling = model.branches(config.generation) * (model.calls * model.denoiser + model.text)
    flops = {"sample": sae.images * sampling, "train": training}
    seconds = seconds_of(flops, rates.tflops)
    hours = None if seconds is None else sum(seconds.values()) / 3600
    money = None if hours is None or not rates.price else hours * rates.price
    return {
        "images": sae.images,
        "flops": flops,
        "bytes": {"activations": stored},
        "device_hours": hours,
        "money": money,
    }


def print_plan(result: dict[str, Any]) -> None:
    """The plan as text."""
    print(f"{result['images']} pictures in {result['shards']} shards, {result['sites']} sites", end=", ")
    print(f"{result['features']} features")
    print("  " + ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in result["counts"].items()))
    print("  heard: " + ", ".join(f"t = {t:g} at {real:.2f}" for t, real in result["moments"].items()))
    hours = {stage: seconds / 3600 for stage, seconds in (result["seconds"] or {}).items()}
    print()
    print_table(
        {"stage": "", "TFLOP": ",.2f", **({"device hours": ",.3f"} if hours else {})},
        ((stage, value / 1e12, *([hours.get(stage)] if hours else [])) for stage, value in result["flops"].items()),
    )
    print()
    print_table({"table": "", "MB": ",.1f"}, ((table, value / 1e6) for table, value in result["bytes"].items()))
    print()
    if result["device_hours"] is None:
        print("no device rate: name a run with --like, or a device with --device or --tflops")
    else:
        low, high = result["hours_range"]
        print(f"device hours {result['device_hours']:,.3f}, {result['hours']:,.3f} h on all devices", end="")
        print(f" ({low:,.3f} to {high:,.3f})", end="")
        print("" if result["money"] is None else f", money {result['money']:,.2f}")
    making, together = result["tables"]["reduce"], result["tables"]["compact"]["cpu_seconds"] / 3600
    if "wall_seconds" in making:
        said = f"{making['wall_seconds'] / 3600:,.3f} h with as many workers as the run of --like had, in"
    else:
        said = f"{making['cpu_seconds'] / 3600:,.3f} CPU hours in"
    print(f"tables: {said} {making['tasks']} tasks; gazetteer compact: {together:,.3f} CPU hours")
    if sae := result["sae"]:
        spent = "" if sae["device_hours"] is None else f", device hours {sae['device_hours']:,.3f}"
        operations = sum(sae["flops"].values()) / 1e12
        stored = sae["bytes"]["activations"] / 1e6
        print(f"sae train: {sae['images']} pictures, {operations:,.2f} TFLOP, activations {stored:,.1f} MB{spent}")
    for sentence in result["assumed"]:
        print(f"assumed: {sentence}")

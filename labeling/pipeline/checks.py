"""What can be known to be wrong before a picture is sampled or a worker started, from configurations alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.inputs.given.open import open_given
from gazetteer.data.inputs.model_files import check_model_folder, expect_shipped, looks_like_folder
from gazetteer.diffusion.blocks import check_model
from gazetteer.diffusion.config.generation import check_moments
from gazetteer.labeling.detect.load import segments
from gazetteer.labeling.detect.vocabulary_check import check_concepts
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.pipeline.given_names import require_names
from gazetteer.labeling.segment.finder import NO_SEGMENTER
from gazetteer.labeling.segment.load import segmenter_kind
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.sae.model.checkpoint import check_weights, expect_site
from gazetteer.sae.model.sources import SaeSource, configs, places, require_used, told_signals, unfinished_sites


def check_inputs(config: StageConfig, here: bool = True) -> None:
    """Refuse what no worker could work with: moments, devices, models, blocks, autoencoders, the vocabulary, names.

    Nothing is loaded but configurations, the detector's tokenizer and, last, the autoencoders' weights, one by one; a
    hub's model is asked for its own.

    Args:
        here: whether the workers run on this machine. Those of a cluster have devices and models of their own, of
            which this process knows nothing.

    Raises:
        InputError: the first thing that is wrong.
    """
    check_moments(config.generation)
    vocabulary = check_names(config)
    sites = config.generation.sites
    expect_shipped("text-to-image model", Path(config.model.path))
    try:
        shapes = check_saes(config.saes, sites, config.sae_check.signal)
    except InputError:
        if here:  # a block that is not there has no autoencoder either, which is not what is wrong
            check_model(config.model, config.generation)
        raise
    if here:
        _check_models(config, shapes, vocabulary)
    check_weights(config.saes, sites)


def check_names(config: StageConfig) -> Vocabulary:
    """The vocabulary, where it, the names of given pictures and the words of the prompts can be labelled.

    Raises:
        InputError: the first that cannot.
    """
    vocabulary = Vocabulary(config.vocabulary)
    if config.pictures.kind:
        require_names(open_given(config.pictures, config.seed))
    if any(site.stream == TEXT for site in config.generation.sites):
        check_words(config)
    return vocabulary


def _check_models(config: StageConfig, shapes: Mapping[Site, Mapping[str, Any]], vocabulary: Vocabulary) -> None:
    """Refuse devices and models that this machine does not have, and what does not fit them.

    Args:
        shapes: of `check_saes`.
    """
    loaded = ("model",) if config.pictures.kind else ("model", "detector", "segmenter")
    check_devices({f"{name}.device": getattr(config, name).device for name in loaded})
    for name, own in (("detector", "groundingdino"), ("segmenter", "segment_anything")):
        finder = getattr(config, name)
        if name not in loaded:
            continue
        if name == "segmenter" and not finder.path:
            if not segments(config.detector):
                raise InputError(NO_SEGMENTER)
            continue
        _check_finder(name, finder.path, finder.library == own)
        if name == "segmenter" and finder.library != own:
            segmenter_kind(finder)
    widths = check_model(config.model, config.generation)
    check_widths(config.saes, shapes, widths)
    if not config.pictures.kind:
        check_concepts(config.detector, vocabulary.concepts)


def check_words(config: StageConfig) -> None:
    """Raise InputError where a text stream is to be labelled that no words are known of."""
    if config.pictures.kind:
        raise InputError("Given pictures have no prompt whose words could be labelled; set generation.streams=[image].")


def check_saes(saes: SaeSource, sites: Sequence[Site], signal: str = "") -> dict[Site, dict[str, Any]]:
    """What the autoencoder of each site says of itself (`configs`), which must be that it belongs there.

    Raises:
        InputError: a pattern that matches no site, a site without an autoencoder, or one that belongs elsewhere.
    """
    require_used(saes, sites)
    return _stated_shapes(saes, sites, signal)


def check_present(saes: SaeSource, sites: Sequence[Site], signal: str, widths: Mapping[str, int]) -> int:
    """As `check_saes`, `check_widths` and `check_weights`, of those autoencoders alone that are on this machine.

    Args:
        widths: channels by block; where a block has none, that of its autoencoder is not compared.

    Returns:
        how many of the sites have one.

    Raises:
        InputError: as they do.
    """
    require_used(saes, sites)
    lacking = set(unfinished_sites(saes, sites))
    where = {site: place for site, place in places(saes, sites).items() if site.slug not in lacking}
    present = [site for site, place in where.items() if isinstance(place, Path)]
    shapes = _stated_shapes(saes, present, signal)
    check_widths(saes, {site: shape for site, shape in shapes.items() if site.block in widths}, widths)
    return check_weights(saes, present, fetch=False)


def _stated_shapes(saes: SaeSource, sites: Sequence[Site], signal: str) -> dict[Site, dict[str, Any]]:
    """What the autoencoders of sites say of themselves; InputError where that is not that they belong there."""
    shapes, where, told = configs(saes, sites), places(saes, sites), told_signals(saes, sites, signal)
    for site, shape in shapes.items():
        expect_site(shape, site, where[site], told[site], mapped=isinstance(saes, Mapping))
    return shapes


def check_widths(saes: SaeSource, shapes: Mapping[Site, Mapping[str, Any]], widths: Mapping[str, int]) -> None:
    """InputError, with the folder or pattern, for an autoencoder that reads vectors of another width than its block's.

    Args:
        shapes: of `check_saes`.
        widths: channels by block.
    """
    where = places(saes, shapes)
    for site, shape in shapes.items():
        if int(shape["d"]) != widths[site.block]:
            raise InputError(
                f"The SAE in {where[site]}, of {site.slug}, expects {shape['d']} channels, but {site.block} has "
                f"{widths[site.block]}."
            )


def check_devices(devices: dict[str, str]) -> None:
    """InputError for a device, by the key that names it, which this machine does not have."""
    import torch

    for key, name in devices.items():
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise InputError(f"{key} is {name!r}, which is no device; accepted: cpu, cuda, cuda:1, mps …") from error
        count = torch.cuda.device_count() if device.type == "cuda" else None
        if count is not None and (device.index or 0) >= count:
            present = f"only {count} of them" if count else "none"
            raise InputError(
                f"{key} {name!r} cannot be used here: it names a CUDA device, and torch sees {present} on this machine "
                f"(gazetteer doctor says more); {key}=cpu works everywhere."
            )
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise InputError(f"{key} {name!r} cannot be used here: this machine has no Apple GPU.")


def _check_finder(what: str, path: str, checkpoint: bool) -> None:
    """InputError when the weights of what finds things are not there."""
    if checkpoint:
        require_file(f"The {what}", path, f"a checkpoint file, which {what}.path names")
    elif looks_like_folder(path):
        check_model_folder(what, Path(path))

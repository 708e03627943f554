"""Autoencoders at rest: a folder of ``config.json`` and ``model.safetensors``, of our own format or a foreign one.

Folders and files in the formats of other projects (`sae.formats`) are read too, and so are hub ids (`sae.model.hub`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.core.files.regular import has_file
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.registry import FORMATS, recognise
from gazetteer.sae.model.hub import local_folder
from gazetteer.sae.model.shape import SAEConfig

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OPTIONS = (
    "batch_topk", "max_k", "prefixes", "latent_bias", "activation", "normalise", "transcoder",
    "d_out", "output_bias", "scaled", "time_dim", "time_scale",
)  # fmt: skip
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


class Stored(NamedTuple):
    """What a folder holds: the shape, the tensors, and everything that its configuration says."""

    shape: SAEConfig
    tensors: dict[str, Tensor]
    config: dict[str, Any]


def write_folder(
    folder: Path | str,
    shape: SAEConfig,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an autoencoder: the weights, then the ``config.json`` that makes them count.

    Args:
        metadata: JSON values kept in ``config.json``; ``site`` (a `Site`) is written as its columns. By custom
        also ``metrics``, ``training`` and ``model_digest`` (of the model it listens to).
        dtype: torch.float32 or torch.float16, of the stored weights.

    Raises:
        InputError: another dtype.
        GazetteerError: a weight is not finite in that dtype, or the folder cannot be written.
    """
    if dtype not in (torch.float32, torch.float16):
        raise InputError(f"SAE weights are stored as float32 or float16, not {dtype}.")
    folder = Path(folder)
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in tensors.items()}
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise GazetteerError(f"The SAE's {name} is not finite in {dtype}; it was not written to {folder}.")
    content = save_tensors(tensors)
    config: dict[str, Any] = {"normalisation": "none", "site": None} | dict(metadata or {})
    if isinstance(config["site"], Site):
        config["site"] = config["site"].columns()
    config |= {"format": FORMAT, "d": shape.d, "n": shape.n, "k": shape.k}
    config |= _options(shape)
    config |= {"dtype": str(dtype).removeprefix("torch."), "sha256": hashlib.sha256(content).hexdigest()}
    # Without its config the folder holds no autoencoder, so old weights never stand under a new config.
    (folder / CONFIG).unlink(missing_ok=True)
    replace_file(folder / WEIGHTS, content)
    replace_file(folder / CONFIG, json.dumps(config, indent=1, sort_keys=True).encode())


def update_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Replace some entries of a ``config.json`` of our own format, atomically; raises as `read_config`."""
    content = json.dumps(read_config(folder) | dict(changes), indent=1, sort_keys=True)
    replace_file(folder / CONFIG, content.encode())


def read_folder(folder: Path | str) -> Stored:
    """Read an autoencoder; nothing that could run code is ever opened.

    Args:
        folder: of our own format or one of `sae.formats`, or a hub id ``owner/repository[/folder or file][@revision]``.

    Raises:
        InputError: a folder or file missing, a pickle in its place, or contents that do not fit.
    """
    folder = local_folder(folder)
    config = read_config(folder)
    foreign = recognise(folder)
    tensors = _own_tensors(folder, config) if foreign is None else foreign.tensors(folder, config)
    optional = {name: name in tensors for name in ("latent_bias", "output_bias")}
    shape = _shape(config | optional)
    if foreign is not None:
        config |= optional
        _check_tensors(tensors, shape, folder, "its configuration")
    return Stored(shape, tensors, config)


def _own_tensors(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of our own format; raises InputError when they are missing, damaged or of another config."""
    shape = _shape(config)
    if not has_file("The SAE's weights", folder / WEIGHTS):
        raise InputError(f"The SAE in {folder} has no {WEIGHTS}.")
    content = (folder / WEIGHTS).read_bytes()
    try:
        tensors: dict[str, Tensor] = load_tensors(content)
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS} is not a readable safetensors file; it is damaged.") from error
    _check_tensors(tensors, shape, folder / WEIGHTS)
    if "sha256" in config and hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise InputError(f"{folder / WEIGHTS} is not the file its {CONFIG} describes: the digests differ.")
    return tensors


def _options(shape: SAEConfig) -> dict[str, Any]:
    """What differs from a plain TopK autoencoder, as JSON; empty for one."""
    plain = SAEConfig(shape.d, shape.n, shape.k)
    values = {name: getattr(shape, name) for name in OPTIONS if getattr(shape, name) != getattr(plain, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _shape(config: Mapping[str, Any]) -> SAEConfig:
    """The shape that a ``config.json`` states; raises InputError when it cannot be."""
    options = {name: config[name] for name in OPTIONS if config.get(name) is not None}
    try:
        options["prefixes"] = tuple(options.get("prefixes", ()))
        return SAEConfig(config["d"], config["n"], config["k"], **options)
    except TypeError as error:
        raise InputError(f"The SAE's {CONFIG} states options that cannot be read: {options}.") from error


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder, or what stands for it in a foreign format.

    Raises:
        InputError: there is none, or its d, n and k are not whole numbers.
    """
    if not folder.is_dir() and not has_file("The SAE", folder, "a folder or a file of a known format"):
        raise InputError(
            f"There is no SAE {'file' if folder.suffix in (*PICKLES, '.safetensors') else 'folder'} {folder}."
        )
    foreign = recognise(folder)
    if foreign is not None:
        return foreign.config(folder)
    if folder.suffix in PICKLES:
        names = ", ".join(known.name for known in FORMATS)
        raise InputError(f"{folder} is a pickle file of no known format ({names}); such can run code.")
    if folder.is_file():
        raise InputError(f"The file {folder} is no SAE of a known format; name the folder that holds one.")
    path = folder / CONFIG
    if not has_file("The SAE's configuration", path):
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        hint = f"; {pickles[0]} is a pickle file, and SAEs load from safetensors only" if pickles else ""
        raise InputError(f"The folder {folder} holds no finished SAE: {CONFIG} is missing{hint}.")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON.") from error
    keys = ("d", "n", "k")
    if not isinstance(config, dict) or not all(type(config.get(key)) is int for key in keys):
        raise InputError(f"{path} must give d, n and k as whole numbers.")
    if config.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path} has format {config['format']}; this version reads format {FORMAT}.")
    return config


def _check_tensors(tensors: Mapping[str, Tensor], shape: SAEConfig, path: Path, config: str = CONFIG) -> None:
    """Raises InputError unless the tensors are exactly those of an autoencoder of this shape."""
    expected = {"encoder": [shape.n, shape.d], "decoder": [shape.n, shape.writes], "bias": [shape.d]}
    expected |= {"latent_bias": [shape.n]} if shape.latent_bias else {}
    expected |= {"output_bias": [shape.writes]} if shape.output_bias else {}
    expected |= {"scale": [shape.d]} if shape.scaled else {}
    if shape.time_dim:
        width, both = shape.time_dim, 2 * shape.d
        expected |= {f"time.{layer}.weight": [width, width] for layer in ("first", "second")}
        expected |= {f"time.{layer}.bias": [width] for layer in ("first", "second")}
        expected |= {"time.head.weight": [both, width], "time.head.bias": [both]}
    expected |= {"threshold": list(shape.thresholds)} if shape.thresholds is not None else {}
    if set(tensors) != set(expected):
        raise InputError(
            f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}; an SAE has {', '.join(sorted(expected))}."
        )
    for name, size in expected.items():
        if list(tensors[name].shape) != size:
            raise InputError(
                f"{path}: {name} is {list(tensors[name].shape)}, but {config} says {size} (d={shape.d}, n={shape.n})."
            )
        if not tensors[name].is_floating_point() or not bool(torch.isfinite(tensors[name].float()).all()):
            raise InputError(f"{path}: {name} holds values that are not finite numbers.")

"""Autoencoders written in the formats of other projects, for their own loaders: SAELens and sdxl-unbox."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.format import block_hook
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.sources import holds_sae

FORMATS = ("sae-lens", "sdxl-unbox")
NORMALISED = {"none": "none", "layer_norm": "layer_norm", "norm": "constant_norm_rescale"}


def export(source: str | Path, to: str | Path, layout: str) -> list[Path]:
    """Write an autoencoder, or every one of a folder of sites, in another project's layout.

    Args:
        source: an autoencoder's folder, file or hub id, or a folder with one folder a site.
        to: the folder to write; of a folder of sites it receives one folder a site.
        layout: one of `FORMATS`.

    Returns:
        the folders written.

    Raises:
        InputError: an unknown layout, nothing to read, an autoencoder that the layout cannot hold, or a folder to
            write that is not empty.
    """
    if layout not in FORMATS:
        raise InputError(f"--layout is {layout!r}; accepted: {', '.join(FORMATS)}.")
    work = {Path(to) / name: place for name, place in _places(source).items()}
    for folder in work:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there already and not empty; name another folder.")
    files = {folder: _files(*load_pretrained(place), layout, place) for folder, place in work.items()}
    for folder, contents in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            replace_file(folder / name, content)
    return list(files)


def _places(source: str | Path) -> dict[str, str | Path]:
    """Names below the folder to write, with what stands there."""
    path = Path(source)
    if not path.is_dir() or holds_sae(path):
        return {"": source}
    folders: dict[str, str | Path] = {
        folder.name: folder for folder in sorted(path.iterdir()) if folder.is_dir() and holds_sae(folder)
    }
    if not folders:
        raise InputError(f"{source} is no autoencoder, and none of its folders is one.")
    return folders


def _files(sae: SparseAutoencoder, config: Mapping[str, Any], layout: str, place: str | Path) -> dict[str, bytes]:
    tensors = {name: value.detach().to("cpu", torch.float32) for name, value in sae.state_dict().items()}
    tensors.setdefault("latent_bias", torch.zeros(sae.config.n))
    if sae.config.transcoder:
        raise InputError(f"{place} is a transcoder; autoencoders can be exported.")
    if sae.config.time_dim or sae.config.scaled:
        raise InputError(f"{place} scales each channel before encoding, which neither layout has a word for.")
    return (_lens if layout == "sae-lens" else _unbox)(sae, config, tensors, place)


def _lens(
    sae: SparseAutoencoder, config: Mapping[str, Any], tensors: Mapping[str, Tensor], place: str | Path
) -> dict[str, bytes]:
    """``cfg.json`` and ``sae_weights.safetensors``; a BatchTopK one becomes the JumpReLU that it is when encoding."""
    shape = sae.config
    if shape.normalise not in NORMALISED:
        raise InputError(f"{place} normalises each vector to length 1, which SAELens has no word for.")
    jumping = sae.threshold is not None
    stated: dict[str, Any] = {
        "architecture": "jumprelu" if jumping else "standard" if shape.free else "topk",
        "d_in": shape.d, "d_sae": shape.n, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": NORMALISED[shape.normalise], "reshape_activations": "none",
        "signal": sae.signal, "metadata": {"hook_name": _hook(config)}, **_stream(config),
    }  # fmt: skip
    if stated["architecture"] == "topk":
        stated |= {"k": shape.k, "rescale_acts_by_decoder_norm": False}
    weights = {
        "W_enc": tensors["encoder"].T, "W_dec": tensors["decoder"], "b_enc": tensors["latent_bias"],
        "b_dec": tensors["bias"],
    }  # fmt: skip
    if jumping:
        weights["threshold"] = tensors["threshold"].expand(shape.n)
    content = save_tensors({name: value.contiguous().clone() for name, value in weights.items()})
    return {"sae_weights.safetensors": content, "cfg.json": _json(stated)}


def _unbox(
    sae: SparseAutoencoder, _: Mapping[str, Any], tensors: Mapping[str, Tensor], place: str | Path
) -> dict[str, bytes]:
    """``config.json`` and ``state_dict.pth``; that project has TopK of plain updates alone."""
    shape = sae.config
    if shape.free or sae.threshold is not None or shape.normalise != "none":
        formula = "BatchTopK" if shape.batch_topk else shape.activation if shape.free else shape.normalise
        raise InputError(f"{place} is a {formula} autoencoder; sdxl-unbox holds TopK ones. --layout sae-lens holds it.")
    if sae.signal != "update":
        raise InputError(f"{place} reads {sae.signal or 'no stated signal'}; sdxl-unbox gives a block's update.")
    stated = {
        "n_dirs_local": shape.n, "d_model": shape.d, "k": shape.k, "auxk": None, "dead_steps_threshold": 0,
    }  # fmt: skip
    state = {
        "pre_bias": tensors["bias"], "latent_bias": tensors["latent_bias"],
        "stats_last_nonzero": torch.zeros(shape.n, dtype=torch.long), "encoder.weight": tensors["encoder"],
        "decoder.weight": tensors["decoder"].T,
    }  # fmt: skip
    return {"state_dict.pth": _pickled({"state_dict": state}), "config.json": _json(stated)}


def _hook(config: Mapping[str, Any]) -> str | None:
    """The module that an autoencoder listens to, as a path from the pipeline's denoiser."""
    site = config.get("site")
    block = Site(**site).block if site else config.get("block")
    return None if block is None else block_hook(block)


def _stream(config: Mapping[str, Any]) -> dict[str, str]:
    """Which tokens it reads, where that is known."""
    site = config.get("site")
    stream = Site(**site).stream if site else config.get("stream")
    return {} if stream is None else {"stream": stream}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()

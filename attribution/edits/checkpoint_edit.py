"""Apply an edit to a model's files without loading the model: copy them, then overwrite single numbers in place.

A safetensors file says at which byte each tensor starts, so a model of any size needs the memory of one edit.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from gazetteer.attribution.edits.delta import Delta, check_values
from gazetteer.data.core.errors import InputError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def edit_model(source: str | Path, out: str | Path, delta: Delta, *, part: str = "unet", undo: bool = False) -> Path:
    """Copy a diffusers model folder and apply (or `undo`) an edit to the weights of one part of it.

    Args:
        source: folder with `part` in it, weights as .safetensors, sharded or not.
        out: a folder that does not exist yet.

    Returns:
        `out`, complete: it is built beside its final name and renamed.

    Raises:
        InputError: no such model, `out` exists, or the edit does not fit the weights.
    """
    source, out = Path(source), Path(out)
    if not list((source / part).glob("*.safetensors")):
        raise InputError(f"{source} has no {part}/*.safetensors to edit.")
    if out.exists():
        raise InputError(f"{out} exists already; name a new folder.")
    staged = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(source, staged)
        edit_weights(sorted((staged / part).glob("*.safetensors")), delta, undo=undo)
        staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return out


def edit_weights(files: list[Path], delta: Delta, *, undo: bool = False) -> None:
    """Overwrite the edit's weights in safetensors files, in place.

    Raises:
        InputError: before anything is written, if the files do not hold what the edit expects, or two hold the same
            weights (variants of a model), of which one would stay as it was.
    """
    places: dict[str, tuple[Path, torch.dtype, int, int]] = {}
    for path in files:
        for name, place in _header(path).items():
            if name in places:
                raise InputError(
                    f"{places[name][0].name} and {path.name} both hold {name}: leave one variant of the weights in "
                    f"{path.parent} and edit again."
                )
            places[name] = (path, *place)

    def read(name: str, index: Tensor) -> Tensor:
        path, dtype, start, _ = places[name]
        with path.open("rb") as stream:
            return _read(stream, dtype, start, index)

    ends = {n: (c.index, *((c.new, c.old) if undo else (c.old, c.new))) for n, c in delta.changes.items()}
    check_values(
        {name: (index, before) for name, (index, before, _) in ends.items()},
        lambda name: places[name][3] if name in places else None,
        read,
    )
    for name, (index, _, after) in ends.items():
        path, _, start, _ = places[name]
        content = after.contiguous().view(torch.uint8).numpy().tobytes()
        width = after.element_size()
        with path.open("r+b") as stream:
            for nth, place in enumerate(index.tolist()):
                stream.seek(start + place * width)
                stream.write(content[nth * width : (nth + 1) * width])


def _header(path: Path) -> Mapping[str, tuple[torch.dtype, int, int]]:
    """Per tensor of a safetensors file: its type, the byte where it starts, how many numbers it has."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{path} is not a safetensors file: {error}.") from error
    return {
        name: (_DTYPES[entry["dtype"]], 8 + length + entry["data_offsets"][0], math.prod(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] in _DTYPES
    }


def _read(stream: BinaryIO, dtype: torch.dtype, start: int, index: Tensor) -> Tensor:
    width, content = torch.empty(0, dtype=dtype).element_size(), bytearray()
    for place in index.tolist():
        stream.seek(start + place * width)
        content += stream.read(width)
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)

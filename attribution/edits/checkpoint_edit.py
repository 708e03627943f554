"""Apply an edit to a model's files without loading the model: copy them, then overwrite single numbers in place.

A safetensors file says at which byte each tensor starts, so a model of any size needs the memory of one edit.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from gazetteer.attribution.edits.cast import Rounding, fitted
from gazetteer.attribution.edits.delta import FLOATS, Change, Delta, bits, check_values, ends_of, made_in
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.plain_json import once

_WEIGHTS = (".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".pb", ".pt", ".pth", ".safetensors")
"""How the names of files of weights end, in whatever format."""
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def edit_model(
    source: str | Path, out: str | Path, delta: Delta, *, part: str = "unet", undo: bool = False
) -> tuple[Rounding, list[str]]:
    """Copy a diffusers model folder and apply (or `undo`) an edit to the weights of one part of it.

    What holds the same weights in another file, and would hold them unedited, is `left_out`.

    Args:
        source: folder with `part` in it, weights as .safetensors, sharded or not.
        out: a folder that does not exist yet; it is built beside its final name and renamed, so that it is whole or
            not there. Its files have the usual modes of new files, whatever those of a read-only source are.

    Returns:
        what became of the new values where the files hold another type than the edit (`fitted`), and what was left out.

    Raises:
        InputError: no such model, `out` exists, lies in it or cannot be written, something in the model that is not a
            file or folder, files of the part's weights that its index names and that are not there, or the edit does
            not fit the weights.
    """
    source, out = Path(source), Path(out)
    if not (files := sorted((source / part).glob("*.safetensors"))):
        raise InputError(f"{source} has no {part}/*.safetensors to edit.")
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists already; name a new folder.")
    if source.resolve() in out.resolve().parents:
        raise InputError(f"{out} lies in {source}, of which it is to be a copy; name a folder outside of it.")
    _places(files)  # before the copy, so that a sentence names the user's file
    _require_whole(source / part)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}.") from error
    try:
        without = left_out(source, part)
        _copy(source, staged / "model", skip={source / name for name in without})
        done = edit_weights(sorted((staged / "model" / part).glob("*.safetensors")), delta, undo=undo)
        (staged / "model").rename(out)
    except OSError as error:
        raise InputError(f"{source} cannot be copied to {out}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return done, without


def left_out(model: str | Path, part: str) -> list[str]:
    """What a copy with edited weights leaves out, relative to the model: the part's weights in other formats and
    subfolders, and whole models in one file beside the parts. They would be read, by whoever reads them, unedited."""
    model = Path(model)
    inside = (file for file in (model / part).rglob("*") if file.suffix in _WEIGHTS or ".bin.index" in file.name)
    beside = (file for file in model.glob("*") if file.suffix in (".ckpt", ".safetensors"))
    kept = set((model / part).glob("*.safetensors"))
    return sorted(str(file.relative_to(model)) for file in (*inside, *beside) if file.is_file() and file not in kept)


def _require_whole(folder: Path) -> None:
    """InputError where an index of weights names a file that is not there: the copy would be no model."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            named = set(json.loads(index.read_bytes(), object_pairs_hook=once)["weight_map"].values())
            missing = sorted(name for name in named if not (folder / name).is_file())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{index} is not a readable index of weights: {error}.") from error
        if missing:
            raise InputError(f"{index} names {missing[0]}, which is not there: the model is not whole.")


def _copy(source: Path, target: Path, above: tuple[Path, ...] = (), skip: Collection[Path] = ()) -> None:
    """Copy a folder, links followed, without its modes: what cannot be written could be neither edited nor removed."""
    real = source.resolve()
    if real in above:
        raise InputError(f"{source} is a link to a folder that holds it; a model of endless depth cannot be copied.")
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            _copy(entry, target / entry.name, (*above, real), skip)
        elif entry in skip:
            continue
        elif entry.is_file():
            shutil.copyfile(entry, target / entry.name)
        else:
            raise InputError(f"{entry} is neither a file nor a folder (a broken link?); a model is made of these.")


def edit_weights(files: list[Path], delta: Delta, *, undo: bool = False) -> Rounding:
    """Overwrite the edit's weights in safetensors files, in place; returns what `fitted` says of the new values.

    Raises:
        InputError: before anything is written, if the files do not hold what the edit expects, or two hold the same
            weights (variants of a model), of which one would stay as it was.
    """
    places = _places(files)

    def read(name: str, index: Tensor) -> Tensor:
        path, dtype, start, _ = places[name]
        with path.open("rb") as stream:
            return _read(stream, dtype, start, index)

    stored, rounding = fitted(delta, lambda name: places[name][1] if name in places else None)
    ends = ends_of(stored, undo)
    check_values(ends, lambda name: places[name][3] if name in places else None, read, made_in(delta))
    for name, (index, _, after) in ends.items():
        path, _, start, _ = places[name]
        content = after.contiguous().view(torch.uint8).numpy().tobytes()
        width = after.element_size()
        with path.open("r+b") as stream:
            for nth, place in enumerate(index.tolist()):
                stream.seek(start + place * width)
                stream.write(content[nth * width : (nth + 1) * width])
    return rounding


def as_stored(delta: Delta, folder: Path, variant: str = "") -> Delta:
    """The edit with what the files hold that its weights were read from, where the type read into does not hold that.

    Weights of float32 files that were read as float16, or of float16 files that were read as bfloat16, are rounded,
    and an edit of them could not be taken out of the files again: its old values are those of the files, its new ones
    cast. Parameters whose files hold something else (a model that was changed after it was read) stay as they are.

    Args:
        folder: of the part of the model that is edited; one that is not there changes nothing.
        variant: of the files (``fp16``), empty for none.

    Raises:
        InputError: a new value is beyond what the files' type holds.
    """
    changes = dict(delta.changes)
    for path in _read_from(folder, variant):
        with safe_open(str(path), framework="pt") as file:
            for name in delta.changes.keys() & set(file.keys()):
                changes[name] = _with_stored(name, delta.changes[name], file.get_tensor(name).reshape(-1))
    return Delta(changes, delta.provenance)


def _with_stored(name: str, change: Change, stored: Tensor) -> Change:
    read_in = change.old.dtype
    # Of float16 and bfloat16 neither holds what the other does: the type of both is float32.
    if stored.dtype not in FLOATS or torch.promote_types(stored.dtype, read_in) == read_in:
        return change
    if bool((change.index >= len(stored)).any()):
        return change
    old, new = stored[change.index], change.new.to(stored.dtype)
    if not torch.equal(bits(old.to(read_in)), bits(change.old)):
        return change
    if not bool(new.isfinite().all()):
        raise InputError(
            f"The edit's new values of {name} are beyond what {stored.dtype} holds, in which the model's files are."
        )
    return Change(change.index, old, new)


def _read_from(folder: Path, variant: str) -> list[Path]:
    """The files of a folder that a pipeline reads: those of the variant, or else those of none."""
    files = sorted(folder.glob("*.safetensors"))
    named = [file for file in files if variant and re.search(rf"\.{re.escape(variant)}[.-]", file.name)]
    return named or [file for file in files if re.fullmatch(r"[^.]+", file.stem)]


def _places(files: list[Path]) -> dict[str, tuple[Path, torch.dtype, int, int]]:
    """Per tensor its file and what `_header` says; InputError where two files hold the same one."""
    places: dict[str, tuple[Path, torch.dtype, int, int]] = {}
    for path in files:
        for name, place in _header(path).items():
            if name in places:
                raise InputError(
                    f"{places[name][0].name} and {path.name} both hold {name}: leave one variant of the weights in "
                    f"{path.parent} and edit again."
                )
            places[name] = (path, *place)
    return places


def _header(path: Path) -> Mapping[str, tuple[torch.dtype, int, int]]:
    """Per tensor of a safetensors file: its type, the byte where it starts, how many numbers it has.

    Types that edits do not know (float8, integers) are left out. Checked here and not by the library, which maps the
    whole file into memory.
    """
    tensors: dict[str, tuple[torch.dtype, int, int]] = {}
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length), object_pairs_hook=once)
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] not in _DTYPES:
                continue
            dtype, many, (start, stop) = _DTYPES[entry["dtype"]], math.prod(entry["shape"]), entry["data_offsets"]
            if not all(type(number) is int for number in (many, start, stop)):
                raise ValueError(f"{name} has a shape or a place of no whole numbers")
            if start < 0 or stop - start != many * dtype.itemsize or 8 + length + stop > size:
                raise ValueError(f"{name} does not lie where it says")
            tensors[name] = (dtype, 8 + length + start, many)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}.") from error
    return tensors


def _read(stream: BinaryIO, dtype: torch.dtype, start: int, index: Tensor) -> Tensor:
    width, content = torch.empty(0, dtype=dtype).element_size(), bytearray()
    for place in index.tolist():
        stream.seek(start + place * width)
        content += stream.read(width)
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)

"""Files of weights, opened without running code: safetensors, JSON, and PyTorch's restricted loader of tensors."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; raises InputError when it holds none."""
    try:
        stated = json.loads(read_regular(path))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is not valid JSON.") from error
    if not isinstance(stated, dict):
        raise InputError(f"{path} must hold an object.")
    return stated


def read_safetensors(path: Path) -> Tensors:
    """The tensors of a safetensors file; raises InputError when it is damaged."""
    try:
        return in_float32(load_tensors(read_regular(path)))
    except (SafetensorError, KeyError) as error:  # KeyError: of a type that torch does not know
        raise InputError(f"{path} is not a readable safetensors file; it is damaged.") from error


class Tensors(dict[str, Tensor]):
    """Tensors by name, which remember the ones that nobody took: a formula that leaves one out is another formula."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self._left = set(tensors)

    def __getitem__(self, name: str) -> Tensor:
        self._left.discard(name)
        return super().__getitem__(name)

    def expect_all_taken(self, path: Path, *known: str) -> None:
        """InputError where a tensor was not taken, except those known to change no code (counters of a training)."""
        unknown = sorted(self._left - set(known))
        if unknown:
            raise InputError(
                f"{path} holds {', '.join(unknown)}, which the formula that its configuration states does not use; "
                "its codes would be others than its own project's, so it is not read."
            )


def in_float32(tensors: Mapping[str, Tensor]) -> Tensors:
    """Numbers of other precisions, 8-bit ones too, as float32: what is stored is what is computed with."""
    return Tensors({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})


def unreadable(value: Tensor, meta: bool = False) -> str:
    """What a tensor is, where it does not hold its numbers one after the other; empty for a plain one.

    meta: whether one without content is expected.
    """
    if value.is_nested or value.is_quantized:
        return "nested" if value.is_nested else "quantised"
    if value.layout != torch.strided:
        return str(value.layout).removeprefix("torch.")
    return "without content (on the meta device)" if value.device.type == "meta" and not meta else ""


def _expect_plain(content: Any, path: Path, meta: bool) -> None:
    """InputError for a tensor of a dictionary, or of one within it, that is not plain."""
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, Tensor) and (kind := unreadable(value, meta)):
            raise InputError(f"{path}: {name} is {kind}, and only plain tensors are read.")
        _expect_plain(value, path, meta)


class Empty:
    """What stands for an object of another project's class: the values it was stored with, and no behaviour."""


def stand_in(name: str) -> tuple[type, str]:
    """An empty class of its own for a class's full name, as the restricted loader takes it."""
    return type(name.rpartition(".")[2], (Empty,), {}), name


def unpickled(path: Path, shapes_only: bool = False, skip: int = 0, classes: Collection[str] = ()) -> Any:
    """What PyTorch's restricted loader finds in a file: tensors and plain values.

    Args:
        shapes_only: leave the tensors' content on disk (they stand on the meta device).
        skip: bytes before the archive starts.
        classes: full names of classes whose objects may be in it; each is read as an `Empty` of its own kind, so that
            no code of theirs is looked for or run.

    Raises:
        InputError: it is damaged, or holds anything else, tensors that are nested or have no content among it.
    """
    try:
        source: Any = io.BytesIO(path.read_bytes()[skip:]) if skip else path
        with torch.serialization.safe_globals([stand_in(name) for name in classes]):
            content = torch.load(source, map_location="meta" if shapes_only else "cpu", weights_only=True)
    except Exception as error:  # a damaged file makes that loader fail in any way, and nothing of ours runs in it
        raise InputError(f"{path} is damaged, or holds more than plain tensors; it was not loaded.") from error
    _expect_plain(content, path, shapes_only)
    return content


def state_dict(content: Any, path: Path, *keys: str) -> Tensors:
    """The named tensors in what a file holds, itself or under one of `keys`; raises InputError when there are none."""
    for key in keys:
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} does not hold a state dict of tensors.")
    return in_float32(content)

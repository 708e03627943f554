"""Checkpoint files of the original packages, read as tensors only, and put into a model whole or not at all."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import require_file

if TYPE_CHECKING:
    from torch import Tensor


def read_shapes(what: str, path: str) -> dict[str, Tensor]:
    """As `read_checkpoint`, but without reading the numbers: tensors on the meta device."""
    return read_checkpoint(what, path, device="meta")


def read_checkpoint(what: str, path: str, device: str = "cpu") -> dict[str, Tensor]:
    """The weights of a `.safetensors` file or of a `torch.save`d state dict, bare or under "model".

    what: the model's role, for error messages; device: ``cpu``, or ``meta`` for shapes alone.

    Raises:
        InputError: no such file, or it holds anything but tensors (nothing is unpickled that needs code).
    """
    import torch
    from safetensors.torch import load_file

    require_file(f"The {what} checkpoint", path, "a .pth or .safetensors file")
    try:
        if Path(path).suffix == ".safetensors":
            return _shapes(path) if device == "meta" else load_file(path)
        loaded = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"The {what} checkpoint {path} is damaged or needs code to be unpickled, which is refused; accepted: "
            "a state dict of tensors, or .safetensors."
        ) from error
    except Exception as error:  # a damaged file makes a loader fail in any way, and nothing of ours runs in it
        raise InputError(f"The {what} checkpoint {path} could not be read: {first_line(error)}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not (
        isinstance(loaded, Mapping) and loaded and all(isinstance(value, torch.Tensor) for value in loaded.values())
    ):
        raise InputError(f"The {what} checkpoint {path} holds no state dict of tensors.")
    # checkpoints of parallel training carry the wrapper's name in front
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def _shapes(path: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, without their numbers."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}


def fill(what: str, model: Any, state: Mapping[str, Tensor], optional: re.Pattern[str]) -> None:
    """Copy `state` into `model`; every weight must find its place and every place its weight.

    optional: names that neither have to be there nor to be known. Tied weights need one of their names.

    Raises:
        InputError: a weight too many, too few or of another shape.
    """
    # the tensors themselves, not copies: tied weights are one tensor under several names
    places = model.state_dict(keep_vars=True)
    given = {name: tensor for name, tensor in state.items() if name in places or not optional.fullmatch(name)}
    for name, tensor in given.items():
        if name not in places:
            raise InputError(f"The {what} checkpoint does not fit its settings: the model has no {name!r}.")
        if tensor.shape != places[name].shape:
            raise InputError(
                f"The {what} checkpoint does not fit its settings: {name!r} is {list(tensor.shape)}, the model "
                f"needs {list(places[name].shape)}."
            )
    filled = {id(places[name]) for name in given}
    for name, place in places.items():
        if id(place) not in filled and not optional.fullmatch(name):
            raise InputError(f"The {what} checkpoint does not fit its settings: it lacks {name!r}.")
    model.load_state_dict(given, strict=False)

"""What the detector and segmenter loaders share: devices, number types, errors in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import InputError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16")


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `accepted`."""
    if value not in accepted:
        raise InputError(f"{name} is {value!r}; accepted: {', '.join(accepted)}.")


def check_share(name: str, value: float) -> None:
    """Raise InputError unless `value` is a number in 0..1."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; accepted: a number from 0 to 1.")


def move(model: Any, device: str, dtype: str, name: str) -> Any:
    """The model in evaluation mode, frozen, on its device; InputError when the device cannot be used."""
    import torch

    try:
        model = model.to(device=device, dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{name}.device {device!r} cannot be used here: {first_line(error)}") from error
    return model.eval().requires_grad_(False)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def reading(what: str, path: str) -> Iterator[None]:
    """Turn what a model library throws while reading files into one sentence, without its progress bars."""
    from transformers.utils import logging

    if (path.startswith((".", "/", "~")) or path.count("/") > 1) and not Path(path).is_dir():
        raise InputError(f"The {what} folder {path} does not exist (accepted: a folder, or a hub id like owner/name).")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError) as error:
        raise InputError(f"The {what} {path} could not be loaded: {first_line(error)}") from error
    finally:
        if shown:
            logging.enable_progress_bar()


def one_by_one(exact: bool, device: torch.device) -> bool:
    """Whether pictures go through the model singly: on a CPU sums depend on the batch in the last bits."""
    return exact and device.type == "cpu"

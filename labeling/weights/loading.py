"""What the detector and segmenter loaders share: devices, number types, errors in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import GazetteerError, InputError, first_line
from gazetteer.data.core.files.regular import has_file, require_folder
from gazetteer.data.core.hub.reach import within_reach
from gazetteer.data.core.precision import use_tensor_cores
from gazetteer.data.inputs.model_files import check_model_folder, looks_like_folder, why_not_loaded
from gazetteer.diffusion.runtime.memory import FittingBatch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ORIGINAL = {"detector": "groundingdino", "segmenter": "segment_anything"}
"""The library that reads checkpoint files of a role."""

SMALLER = "{0}.dtype=float16, a smaller {0} or a device with more memory"
"""What needs less memory when pictures already go one by one; to be filled with the role."""


def expect_numbers(values: Tensor, role: str) -> None:
    """Raise ValueError where a model gave NaN or infinity, which a threshold would drop or let pass without a word.

    role: ``detector`` or ``segmenter``.
    """
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"the {role} gave values that are no numbers; {role}.dtype=bfloat16 and float32 have the range for them"
        )


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `accepted`."""
    if value not in accepted:
        raise InputError(f"{name} is {value!r}; accepted: {', '.join(accepted)}.")


def move(model: Any, device: str, dtype: str, name: str) -> Any:
    """The model in evaluation mode, frozen, on its device; InputError when the device cannot be used."""
    import torch

    use_tensor_cores()
    try:
        model = model.to(device=device, dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{name}.device {device!r} cannot be used here: {first_line(error)}") from error
    return model.eval().requires_grad_(False)


@contextmanager
def reading(what: str, path: str, weights: bool = True) -> Iterator[None]:
    """Turn what a model library throws while reading files into one sentence, without its progress bars.

    weights: whether more than configurations and tokenizers will be read, so that a folder must hold weights.
    """
    from transformers.utils import logging

    if not path:
        raise InputError(f"{what}.path is empty: a {what} is needed here, which runs on given pictures may leave out.")
    local = "" if Path(path).is_dir() else "a folder, or a hub id like owner/name"
    if local and has_file(f"The {what}", path, local):
        raise InputError(
            f"The {what} {path} is a file, and transformers reads folders; for a checkpoint in the authors' format set "
            f"{what}.library to {ORIGINAL.get(what, 'the one that reads it')}."
        )
    if looks_like_folder(path):
        require_folder(f"The {what} folder", path, local)
        if weights:
            check_model_folder(what, Path(path))
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with within_reach(path):
            yield
    except GazetteerError:
        raise
    except Exception as error:  # whatever the libraries may throw at files that are not what they expect
        raise InputError(why_not_loaded(what, path, error)) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def model_type(what: str, path: str, revision: str = "") -> str:
    """What kind of model a folder or hub id holds, by transformers' name for it; raises InputError as `reading`."""
    from transformers import AutoConfig

    with reading(what, path, weights=False):
        return str(
            AutoConfig.from_pretrained(
                path, trust_remote_code=False, **({"revision": revision} if revision else {})
            ).model_type
        )


def fitting(config: Any, role: str, doing: str, device: torch.device) -> FittingBatch:
    """How many pictures a finder of this configuration takes at once; role: ``detector`` or ``segmenter``."""
    size = 1 if one_by_one(config.exact, device) else config.batch_size
    return FittingBatch(doing, f"{role}.batch_size", size, SMALLER.format(role))


def one_by_one(exact: bool, device: torch.device) -> bool:
    """Whether pictures go through the model singly: on a CPU sums depend on the batch in the last bits."""
    return exact and device.type == "cpu"

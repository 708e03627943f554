"""The checkpoints of one training run: the latest snapshot, and a few before it to fall back on."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.plain_json import json_object
from gazetteer.sae.training.trainer import Trainer, TrainingSnapshot, read_snapshot

SNAPSHOT = "training.safetensors"


def save_snapshot(trainer: Trainer, folder: Path, identity: dict[str, Any], keep: int) -> None:
    """Replace ``training.safetensors`` atomically; with `keep` above 1, older snapshots stay beside it.

    They are called ``training-<step>.safetensors``; the latest snapshot has such a second name too, on file systems
    with links at no cost in space.

    Raises:
        GazetteerError: no space, or no permission.
    """
    trainer.save(folder / SNAPSHOT, identity)
    if keep > 1:
        named = folder / f"training-{trainer.step:09d}.safetensors"
        with write_errors(str(named), resumes=True):
            named.unlink(missing_ok=True)
            try:
                os.link(folder / SNAPSHOT, named)
            except OSError:
                shutil.copyfile(folder / SNAPSHOT, named)
    for old in _named(folder)[keep if keep > 1 else 0 :]:
        old.unlink()


def latest_snapshot(folder: Path) -> TrainingSnapshot | None:
    """The newest snapshot that can be read, or None when there is none at all.

    A damaged one is named in a warning and passed over: any snapshot of a run leads to the same result.

    Raises:
        InputError: there are snapshots, and all of them are damaged.
    """
    present = [path for path in (folder / SNAPSHOT, *_named(folder)) if path.exists()]
    for number, path in enumerate(present):
        try:
            return read_snapshot(path)
        except InputError as error:
            if number == len(present) - 1:
                raise
            warnings.warn(f"{error} An older one is used.", stacklevel=2)
    return None


def begun_as(folder: Path) -> dict[str, Any] | None:
    """The identity of the training whose newest snapshot lies in a folder, its tensors unread; None without one that
    can be read."""
    for path in (folder / SNAPSHOT, *_named(folder)):
        with (
            suppress(OSError, SafetensorError, KeyError, TypeError, ValueError),
            safe_open(path, framework="pt") as file,
        ):
            identity = json_object(file.metadata()["state"])["identity"]
            if isinstance(identity, dict):
                return identity
    return None


def remove_snapshots(folder: Path) -> None:
    """Delete every snapshot in the folder."""
    for path in (folder / SNAPSHOT, *_named(folder)):
        path.unlink(missing_ok=True)


def _named(folder: Path) -> list[Path]:
    """The snapshots named by their step, newest first."""
    return sorted(folder.glob("training-*.safetensors"), reverse=True)

"""Pictures of a protocol: one PNG per prompt and seed, painted once, so that a run that was stopped goes on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gazetteer.attribution.objective.samples import begin
from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class Item:
    """One prompt, its seed, and what it is about (a class, or nothing)."""

    prompt: str
    seed: int
    about: str = ""


def read_items(path: str, column: str, seed: int | None = None, about: str = "", limit: int = 0) -> list[Item]:
    """Prompts of a CSV file.

    Args:
        column: that holds the prompts.
        seed: of every prompt; None takes the column ``evaluation_seed`` or ``seed``.
        about: the column that says what a prompt is about, empty for none.
        limit: so many at most; 0 takes all.

    Raises:
        InputError: no such file or column, or a seed that is not a number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The prompts {path} cannot be read: {error}.") from error
    rows = rows[:limit] if limit else rows
    seeds = next((name for name in ("evaluation_seed", "seed") if rows and name in rows[0]), "")
    needed = [column, *([about] if about else []), *([] if seed is not None else [seeds or "seed"])]
    if not rows or (missing := [name for name in needed if name not in rows[0]]):
        known = ", ".join(rows[0]) if rows else "no row"
        raise InputError(f"The prompts {path} lack the column {missing[0] if rows else column!r}; there is {known}.")
    try:
        return [
            Item(row[column], int(row[seeds]) if seed is None else seed, row[about] if about else "") for row in rows
        ]
    except ValueError as error:
        raise InputError(f"The prompts {path} hold a seed that is not a whole number: {error}.") from error


@torch.no_grad()
def paint_items(
    pipe: Any, items: Sequence[Item], folder: str | Path, *, steps: int, guidance: float, batch: int = 4
) -> list[Path]:
    """``FOLDER/<number>.png`` of every item, each from its own seed; pictures that are there are kept."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.png" for number in range(len(items))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    for start in range(0, len(missing), batch):
        part = missing[start : start + batch]
        latents, generators = begin(pipe, [items[number].seed for number in part])
        made = pipe(
            prompt=[items[number].prompt for number in part], latents=latents.to(pipe.unet.device, pipe.unet.dtype),
            generator=generators, num_inference_steps=steps, guidance_scale=guidance, output_type="pil",
        ).images  # fmt: skip
        for number, picture in zip(part, made, strict=True):
            staged = paths[number].with_suffix(".partial")
            picture.save(staged, format="PNG")
            staged.replace(paths[number])
    return paths


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]; raises InputError for a file that is not a picture."""
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path} is not a picture that can be read.") from error

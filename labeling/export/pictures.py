"""What every export reads of a run: its pictures in a fixed order, each with its segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import new_file
from gazetteer.data.inputs.given.undecided import at_pixels, undecided_cells
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.place import holds
from gazetteer.data.tables.schemas import PART_TABLES

PICTURE_COLUMNS = ("image_id", "prompt", "seed", "split", "image", "width", "height", "asked")


@dataclass(frozen=True)
class ExportedPicture:
    """A row of ``images/`` and its rows of ``segments/``, largest first.

    Attributes:
        ignored: bool [H, W], what nobody decided on in a given picture (`gazetteer.data.inputs.given.undecided`), or
            None.
    """

    row: dict[str, Any]
    segments: tuple[dict[str, Any], ...]
    ignored: NDArray[np.bool_] | None = None

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.row['image_id']}.png"

    @property
    def png(self) -> bytes:
        """Its file."""
        content: bytes = self.row["image"]["bytes"]
        return content


def pictures_of_run(run: RunFolder) -> Iterator[ExportedPicture]:
    """Every picture of a finished run, by shard, then by id.

    Raises:
        InputError: the run is not finished.
    """
    run.require_finished()
    for shard in run.shard_ids():
        images = run.read_table("images", [shard], list(PICTURE_COLUMNS)).to_pylist()
        by_picture: dict[str, list[dict[str, Any]]] = {}
        for segment in run.read_table("segments", [shard]).to_pylist():
            by_picture.setdefault(segment["image_id"], []).append(segment)
        cells = undecided_cells(run, [shard])
        for row in sorted(images, key=lambda row: row["image_id"]):
            own = by_picture.get(row["image_id"], [])
            own.sort(key=lambda segment: (-segment["area"], segment["concept"], segment["box"]))
            undecided = cells.get(row["image_id"])
            ignored = None if undecided is None else at_pixels(undecided, row["height"], row["width"])
            yield ExportedPicture(row, tuple(own), ignored)


def concepts_of_run(run: RunFolder) -> list[str]:
    """Every concept that was asked of a picture or found in one, sorted."""
    run.require_finished()  # before anything is made for it
    asked = run.read_table("images", columns=["asked"])["asked"].combine_chunks()
    concepts = run.read_table("segments", columns=["concept"])["concept"]
    return sorted({*asked.flatten().to_pylist(), *concepts.to_pylist()})


def require_beside(run: RunFolder, place: str | Path) -> None:
    """InputError where a file or folder to write lies among a run's own parts, where readers look for those alone."""
    for folder in (*PART_TABLES, "_meta"):
        if holds(f"{run.path}/{folder}", place):
            raise InputError(f"{place} lies in {folder}/ of the run {run.path} itself; name another place.")


def new_place(path: str | Path, what: str) -> Path:
    """A file or folder to write; InputError when something other than it lies there."""
    place = Path(path)
    if place.is_dir() and any(place.iterdir()):
        raise InputError(f"{what} {place} is a folder that holds files; name a new one.")
    if place.exists() and not place.is_dir():
        raise InputError(f"{what} {place} is a file; name a new one.")
    if not place.exists():
        new_file(path)
    return place

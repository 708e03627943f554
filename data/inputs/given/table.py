"""Any table of images with masks: a run's own tables, or a row a mask in CSV, JSON lines or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.inputs.given.names import concept_names
from gazetteer.data.inputs.given.picture import (
    GivenPicture,
    Masks,
    concept_name,
    mask_size,
    read_index_mask,
    read_picture,
    seen_picture,
)
from gazetteer.data.inputs.given.table_file import read_file
from gazetteer.data.inputs.given.undecided import at_pixels, cells_of_parts, undecided_cells
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.masks import struct_to_mask


class TablePictures:
    """A table; see `gazetteer.data.inputs.given.picture.GivenPictures`.

    A row without a concept says that the picture is there; a row marked ``crowd`` leaves its concept unasked there.
    """

    def __init__(self, path: str) -> None:
        """Raises InputError: no such file or folder, another format, or a column that is missing."""
        self._root = Path(path) if Path(path).is_dir() else Path(path).parent
        rows = _run_rows(Path(path)) if Path(path).is_dir() else _file_rows(Path(path))
        self._ignored = _ignored(Path(path)) if Path(path).is_dir() else {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            self._rows.setdefault(row["key"], []).append(row)
        self.keys = tuple(sorted(self._rows))
        self.concepts = tuple(sorted({row["concept"] for row in rows if row["concept"]}))
        if not self.concepts:
            raise InputError(f"{path} holds no mask with a concept.")
        everything = set(self.concepts)
        self.notes: tuple[str, ...] = ()
        asked = {key: _asked(of_picture, key, path) for key, of_picture in self._rows.items()}
        known = {key: own for key, own in asked.items() if own is not None}  # asked of nothing is not of all
        self._unasked = {
            key: frozenset(
                {row["concept"] for row in of_picture if row["concept"] and row.get("crowd")}
                | (everything - known.get(key, everything))
            )
            for key, of_picture in self._rows.items()
        }
        self.uncertain = frozenset().union(*self._unasked.values())
        unknown = sorted(set().union(*known.values()) - everything)
        if unknown and Path(path).is_file():  # a run has been asked for much that no picture of it shows
            self.notes += (
                f"{path} says that pictures were asked {', '.join(unknown[:3])}{' …' if unknown[3:] else ''}, of which "
                "no row has a mask: there is no such concept in the run.",
            )

    def caption(self, key: str) -> str:
        """The caption of the picture's first row that has one."""
        return next((row["caption"] for row in self._rows[key] if row.get("caption")), "")

    def files(self, key: str) -> tuple[Path, ...]:
        """Its picture and masks, as far as they are not in the table itself."""
        rows = self._rows[key]
        named = [rows[0]["image"], *(row["mask"] for row in rows)]
        return tuple(dict.fromkeys(self._root / name for name in named if isinstance(name, str) and name))

    def read(self, key: str) -> GivenPicture:
        """A picture with its masks."""
        rows = self._rows[key]
        stored = rows[0]["image"]
        size = next((self._size(row["mask"]) for row in rows if row["mask"]), None)
        image = seen_picture(stored, size) if isinstance(stored, bytes) else read_picture(self._root / stored, size)
        segments = []
        for row in rows:
            if row["concept"] and row["concept"] not in self._unasked[key]:
                mask = self._mask(row["mask"], image.shape[:2], key)
                if mask.any():
                    segments.append((row["concept"], mask))
        cells = self._ignored.get(key)
        ignored = None if cells is None else at_pixels(cells, *image.shape[:2])
        return GivenPicture(image, tuple(segments), self._unasked[key], ignored)

    def _size(self, stored: Any) -> tuple[int, int] | None:
        """(H, W) of a mask; None where it cannot be read, which `_mask` says."""
        size = stored.get("size") if isinstance(stored, dict) else None
        if isinstance(stored, str):
            return mask_size(self._root / stored)
        return (size[0], size[1]) if isinstance(size, list) and len(size) == 2 else None

    def _mask(self, stored: Any, size: tuple[int, int], key: str) -> Masks:
        if isinstance(stored, dict):
            mask = struct_to_mask(stored)
        elif isinstance(stored, str) and stored:
            mask = read_index_mask(self._root / stored, size) > 0
        else:
            raise InputError(f"A row of the picture {key} names a concept but no mask (a PNG's path, or run lengths).")
        if mask.shape != size:
            raise InputError(f"A mask of {key} has {list(mask.shape)} pixels, its picture {list(size)}.")
        return np.asarray(mask, np.bool_)


def _asked(rows: list[dict[str, Any]], key: str, source: str) -> set[str] | None:
    """What was asked of a picture; None where no row says it, InputError where they differ or a mask contradicts."""
    said = [set(row["asked"]) for row in rows if row.get("asked") is not None]
    if any(own != said[0] for own in said):
        raise InputError(f"The rows of the picture {key} differ in the concepts that were asked of it; say it alike.")
    drawn = {row["concept"] for row in rows if row["concept"] and not row.get("crowd")}
    if said and (contradicted := sorted(drawn - said[0])):
        raise InputError(
            f"{source} has a mask of {contradicted[0]} in the picture {key}, but says that it was not asked it; name "
            "it in asked, or take the row out."
        )
    return said[0] if said else None


def _ignored(folder: Path) -> dict[str, Masks]:
    """What is to be ignored in the pictures of a run, or of its tables alone."""
    run = RunFolder(folder)
    if run.exists():
        return undecided_cells(run)
    try:
        return cells_of_parts(folder / "codes")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{folder} has a table codes/ that cannot be read ({first_line(error)}).") from error


def _run_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``images/`` and ``segments/`` as a run writes them."""
    columns = {"images": ["image_id", "prompt", "image", "asked"], "segments": ["image_id", "concept", "mask"]}
    run = RunFolder(folder)
    if run.exists():
        run.require_finished()  # else there may be pictures whose segments are yet to come
    try:
        images, segments = (
            run.read_table(name, columns=own) if run.exists() else pq.read_table(folder / name, columns=own)
            for name, own in columns.items()
        )
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{folder} has no readable tables images/ and segments/ ({first_line(error)}).") from error
    rows = images.to_pylist()
    if bare := [row["image_id"] for row in rows if not (row["image"] or {}).get("bytes")]:
        raise InputError(f"{folder}: images/ holds no bytes of the picture {bare[0]}.")
    pictures = {
        row["image_id"]: {"key": row["image_id"], "image": row["image"]["bytes"], "caption": row["prompt"],
                          "concept": None, "mask": None, "asked": row["asked"]}
        for row in rows
    }  # fmt: skip
    if len(pictures) < len(rows):
        ids = [row["image_id"] for row in rows]
        raise InputError(f"{folder}: images/ holds the picture {next(i for i in ids if ids.count(i) > 1)} twice.")
    of_segments = segments.to_pylist()
    lost = [row["image_id"] for row in of_segments if row["image_id"] not in pictures]
    if lost:
        raise InputError(f"{folder}: a segment is of the picture {lost[0]}, which images/ does not hold.")
    masks = [{**pictures[row["image_id"]], "concept": row["concept"], "mask": row["mask"]} for row in of_segments]
    return [*pictures.values(), *masks]


def _file_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of one file, each once; InputError as `read_file`, and when a row names no picture."""
    rows = [_file_row(row, f"Row {number} of {file}") for number, row in enumerate(read_file(file), 1)]
    names = concept_names({row["concept"] for row in rows if row["concept"]})
    for row in rows:
        row["concept"] = names[row["concept"]] if row["concept"] else None
        row["asked"] = row["asked"] and [names.get(text) or concept_name(text) for text in row["asked"]]
    source: dict[str, tuple[int, Any]] = {}
    for number, row in enumerate(rows, 1):
        first, image = source.setdefault(row["key"], (number, row["image"]))
        if image != row["image"]:
            raise InputError(
                f"Rows {first} and {number} of {file} name two pictures {row['key']} (without what follows the dot); "
                "rename one of them."
            )
    return _once(rows)


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those that are there already: a mask that is listed twice is one thing, not two."""
    once: dict[str, dict[str, Any]] = {}
    for row in rows:  # by a digest: masks can be long, and their texts are longer
        said = repr({name: value for name, value in row.items() if name != "image"})
        once.setdefault(digest_bytes(said.encode("utf-8", "surrogatepass")), row)
    return list(once.values())


def _file_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row of a file as `TablePictures` keeps it, its names as written; `where` begins the complaints."""
    image = row["image"]
    name, stored = (image.get("path"), image.get("bytes")) if isinstance(image, dict) else (image, None)
    if stored and not name:
        name = digest_bytes(stored)[:16]  # one picture has a row a mask, wherever they stand
    if not isinstance(name, str) or not Path(name).name:
        raise InputError(f"{where} names no image.")
    if row.get("crowd") not in (0, 1, None):  # what is not a number equals none
        raise InputError(f"{where} has the crowd {row['crowd']!r}; accepted: true, false, 1, 0.")
    asked = row.get("asked")
    if asked is not None and not (isinstance(asked, list) and all(isinstance(concept, str) for concept in asked)):
        raise InputError(f"{where} has the asked concepts {asked!r}; accepted: a list of text, or none.")
    if not isinstance(row.get("caption"), str | None):
        raise InputError(f"{where} has the caption {row['caption']!r}; a caption is text.")
    concept = row["concept"]
    if concept is not None and not isinstance(concept, str):
        raise InputError(f"{where} has the concept {concept!r}; a concept is text.")
    if not concept and row["mask"]:
        raise InputError(f"{where} has a mask and no concept that it is of; a row of a picture alone has neither.")
    if concept and not concept_name(concept):
        raise InputError(
            f"{where} has the concept {concept!r}, which names nothing; a picture of none has no text there."
        )
    return {**row, "key": Path(name).with_suffix("").as_posix(), "image": stored or name, "asked": asked}

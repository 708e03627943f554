"""Layouts over sampling, and sheets of steering and of edits of weights, from the folders their verbs write."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.inputs.edit_files import read_edit
from gazetteer.data.inputs.regions import QUADRANTS
from gazetteer.labeling.atlas.inks import inks
from gazetteer.labeling.atlas.pictures import SUFFIX, write_thumbnail
from gazetteer.labeling.atlas.script import figure, write_script

FOLDER = "sheets"
"""Where the pictures of both pages lie."""

Paths = Sequence[str | os.PathLike[str]]


def write_layouts(folders: Paths, out: Path) -> int:
    """Write what the layout page shows of every folder; how many there are.

    Raises:
        InputError: a folder without layout.json, layout.npz and picture.png, or with damaged ones.
    """
    heads = []
    read = [(Path(folder), *_layout(Path(folder))) for folder in folders]
    colours = inks({concept for _, _, maps in read for concept in maps["concepts"]})  # one a thing on the whole page
    for number, (folder, head, maps) in enumerate(read):
        head["file"] = _copy(folder / "picture.png", out, f"layout-{number}")
        heads.append(head)
        write_script(out, f"layouts/{number}", {**maps, "inks": [colours[concept] for concept in maps["concepts"]]})
    write_script(out, "layouts", heads)
    return len(heads)


def _layout(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head (prompt, seed, steps) and maps of the concepts that the prompt names; levels 0 to 255, masks 0 or 1."""
    about = _read_json(folder / "layout.json", "gazetteer layout predict")
    if not (isinstance(about.get("named"), list) and isinstance(about.get("prompt"), str) and "seed" in about):
        raise InputError(f"{folder / 'layout.json'} is not what gazetteer layout predict writes; run it again.")
    try:
        with np.load(folder / "layout.npz", allow_pickle=False) as stored:
            concepts = [str(name) for name in stored["concepts"]]
            chosen = [concepts.index(name) for name in about["named"] if name in concepts]
            where, cuts, t = stored["where"][:, chosen], stored["thresholds"][:, chosen], stored["t"]
    except (OSError, KeyError, ValueError, IndexError, BadZipFile) as error:
        raise InputError(f"{folder}/layout.npz is missing or damaged; run gazetteer layout predict again.") from error
    head = {"prompt": about["prompt"], "seed": str(about["seed"]), "t": [figure(float(value)) for value in t]}
    maps = {
        "concepts": [concepts[c] for c in chosen], "height": where.shape[2], "width": where.shape[3],
        "levels": _bytes(np.round(255.0 * where.clip(0.0, 1.0))), "masks": _bytes(where >= cuts[:, :, None, None]),
    }  # fmt: skip
    return head, maps


def write_edits(folders: Paths, out: Path) -> int:
    """Write what the steering page shows of every folder; how many pictures were edited.

    Raises:
        InputError: a folder without a readable steer.json (or weights.json, of edits of weights) or the pictures it
            names.
    """
    sheets = []
    for number, folder in enumerate(map(Path, folders)):
        weights = (folder / "weights.json").exists()
        name, writer = ("weights.json", "gazetteer attribute sheet") if weights else ("steer.json", "gazetteer steer")
        about = _read_json(folder / name, writer)
        try:
            lists = (about["pictures"], *(picture["edits"] for picture in about["pictures"]))
            if not all(isinstance(entries, list) for entries in lists):
                raise TypeError("a list is something else")
            for row, picture in enumerate(about["pictures"]):
                files = {
                    title: _copy(folder / file, out, f"edit-{number}-{row}-{_plain(title)}")
                    for title, file in picture["files"].items()
                }
                edits = [str(edit) if weights else _said(edit, about["edits"][edit]) for edit in picture["edits"]]
                sheets.append(
                    {"prompt": picture["prompt"], "seed": str(picture["seed"]), "edits": edits, "files": files}
                )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / name} is not what {writer} writes; run it again.") from error
    write_script(out, "edits", sheets)
    return len(sheets)


def _said(digest: str, raw: Mapping[str, Any]) -> str:
    """An edit in a few words; InputError where what is read is not what was drawn with."""
    edit = read_edit(raw)
    if edit.digest != digest:
        raise InputError(
            f"The edit {digest} of {edit.name!r} was written down by a version with other defaults, and would be read "
            "as another edit; draw it again."
        )
    region, (low, high) = edit.region, edit.window
    where = f"in the box {list(region.box)}" if region.box else "everywhere" if region.everywhere else "in a mask"
    where = next((f"in the {name}" for name, box in QUADRANTS.items() if box == region.box), where)
    return f"{edit.name} {where}, strength {edit.strength:g} {edit.unit}, t {high:g} to {low:g}, {edit.branch}"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _copy(source: Path, out: Path, name: str) -> str:
    """The picture as a thumbnail below `out`; its address there."""
    try:
        content = read_regular(source)
    except (OSError, ValueError) as error:  # ValueError: the name has a zero byte
        reason = getattr(error, "strerror", error)
        raise InputError(f"{source} cannot be read: {reason}.") from error
    (out / FOLDER).mkdir(exist_ok=True)
    write_thumbnail(content, out / FOLDER / f"{name}{SUFFIX}")
    return f"{FOLDER}/{name}{SUFFIX}"


def _read_json(path: Path, writer: str) -> dict[str, Any]:
    try:
        return json_object(read_regular(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged; {writer} writes it.") from error


def _bytes(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii")

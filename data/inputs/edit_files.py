"""Edits as people write them, in YAML or JSON, with shorthands for windows and regions."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import read_regular
from gazetteer.data.core.plain_json import once
from gazetteer.data.core.plain_yaml import read_yaml
from gazetteer.data.inputs.edits import STAGES, Edit, Target
from gazetteer.data.inputs.plain_values import check_choice
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.data.tables.masks import struct_to_mask


def read_edits(path: str | Path) -> tuple[Edit, ...]:
    """The edits of a YAML or JSON file: a list of them, or a mapping with the key ``edits``.

    Beside ``edits`` may stand ``prompt`` and ``seed``, as pictures record them; the edits say nothing of these.

    Raises:
        InputError: unreadable, no edits, an unknown key, a wrong type or value; the sentence names the edit.
    """
    file = Path(path)
    try:
        text = read_regular(file).decode("utf-8")
        raw = (
            json.loads(text, object_pairs_hook=once)
            if file.suffix == ".json"
            else read_yaml(text, f"The edit file {file}")
        )
        json.dumps(raw, default=str, ensure_ascii=False).encode()  # half a character has no digest
    except OSError as error:
        raise InputError(f"The edit file {file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"The edit file {file} is not valid YAML or JSON: {first_line(error)}.") from error
    rows = raw.get("edits") if isinstance(raw, Mapping) else raw
    if rows == []:
        raise InputError(f"The edit file {file} holds no edit; write at least one, e.g. - {{concept: dog}}.")
    if not isinstance(rows, list):
        raise InputError(f"The edit file {file} must hold a list of edits, alone or under the key edits.")
    beside = sorted(raw.keys() - {"edits", "prompt", "seed"}) if isinstance(raw, Mapping) else ()
    if beside:
        raise InputError(
            f"The edit file {file} has the key {beside[0]} beside edits; it belongs to each edit, or nowhere."
        )
    edits = []
    for number, row in enumerate(rows, start=1):
        try:
            edits.append(read_edit(row, file.parent))
        except InputError as error:
            raise InputError(f"{file}, edit {number}: {error}") from error
    return tuple(edits)


def read_edit(raw: Any, folder: Path | None = None) -> Edit:
    """One edit from plain values.

    Accepted shorthands: a window by the name of its stage; a region as ``everywhere``, the name of a quadrant,
    ``{box: …}``, ``{mask: picture.png}`` (beside `folder`: what is neither black nor transparent) or
    ``{mask: {size, counts}}``.

    Raises:
        InputError: an unknown key, a wrong type or value.
    """
    raw = dict(_mapping("edit", raw, _FIELDS))
    if "window" in raw and isinstance(raw["window"], str):
        check_choice("window", raw["window"], tuple(STAGES))
        raw["window"] = STAGES[raw["window"]]
    if "region" in raw:
        raw["region"] = _region(raw["region"], folder)
    if "targets" in raw:
        targets = raw["targets"]
        if not isinstance(targets, list | tuple):
            raise InputError(f"targets must be a list, not {targets!r}.")
        raw["targets"] = tuple(Target(**_typed(_mapping("target", t, _TARGET_FIELDS), _TARGET_FIELDS)) for t in targets)
    return Edit(**_typed(raw, _FIELDS))


_NUMBERS, _WHOLE, _TEXTS = (float, int), (int,), (str,)
_FIELDS: dict[str, Any] = {
    "concept": str, "word": str, "targets": None, "region": None, "outside": str, "window": _NUMBERS, "branch": str,
    "blocks": _TEXTS, "t": float, "choice": str, "strength": float, "unit": str, "images": _WHOLE,
}  # fmt: skip
_TARGET_FIELDS: dict[str, Any] = {
    "block": str, "stream": str, "signal": str, "branch": str, "t": float,
    "features": _WHOLE, "scales": _NUMBERS, "vector": _NUMBERS,
}  # fmt: skip


def _mapping(what: str, raw: Any, known: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        article = "An" if what[0] in "aeiou" else "A"
        raise InputError(f"{article} {what} is a mapping of keys, not {raw!r}.")
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        raise InputError(f"Unknown key {unknown[0]} in an {what}; accepted: {', '.join(known)}.")
    if what == "target" and "block" not in raw:
        raise InputError("A target needs a block.")
    return raw


def _typed(raw: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The values with lists as tuples and whole numbers as floats where floats are meant; InputError otherwise."""
    done: dict[str, Any] = {}
    for name, value in raw.items():
        wanted = known[name]
        if wanted is None or (name == "t" and value is None and "concept" in known):
            done[name] = value
        elif isinstance(wanted, tuple):
            kind = wanted[0]
            if not isinstance(value, list | tuple) or not all(_is(v, kind) for v in value):
                raise InputError(f"{name} must be a list of {_NAMES[kind]}, not {value!r}.")
            done[name] = tuple(_number(name, v, kind) for v in value)
        elif not _is(value, wanted):
            raise InputError(f"{name} must be {_ONE[wanted]}, not {value!r}.")
        else:
            done[name] = _number(name, value, wanted)
    return done


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except OverflowError as error:
        raise InputError(f"{name} is a number that is too large to count with.") from error


_NAMES = {float: "numbers", int: "whole numbers", str: "texts"}
_ONE = {float: "a number", int: "a whole number", str: "text"}


def _is(value: Any, kind: type) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float) if kind is float else kind)


def _region(raw: Any, folder: Path | None) -> Region:
    if raw == "everywhere":
        return Region()
    if isinstance(raw, str):
        if raw not in QUADRANTS:
            raise InputError(f"Unknown region {raw!r}; accepted: everywhere, {', '.join(QUADRANTS)}, a box or a mask.")
        return Region(box=QUADRANTS[raw])
    raw = _mapping("region", raw, {"box": 0, "mask": 0, "mask_size": 0, "mask_counts": 0})
    if raw.keys() not in ({"box"}, {"mask"}, {"mask_size", "mask_counts"}):
        said = f"not {' and '.join(raw)}" if raw else "and everywhere where there is none"
        raise InputError(f"A region is one of box, mask, or mask_size with mask_counts, {said}.")
    if "mask" in raw:
        mask = raw["mask"]
        if isinstance(mask, str):
            return Region.of_mask(_read_mask((folder or Path()) / mask))
        if not isinstance(mask, Mapping) or set(mask) != {"size", "counts"}:
            raise InputError(f"A region's mask is a picture file or {{size, counts}}, not {mask!r}.")
        return Region.of_mask(struct_to_mask(mask))
    region = Region(**_typed(raw, {"box": _NUMBERS, "mask_size": _WHOLE, "mask_counts": str}))
    if region.everywhere:  # [] or "", which as values of a `Region` mean that there is none
        raise InputError(f"A region's {next(iter(raw))} is empty; write everywhere for the whole picture.")
    return region


def _read_mask(path: Path) -> NDArray[np.bool_]:
    """What is neither black nor transparent. JPEG and WebP leave traces in the black around what was painted."""
    from PIL import Image

    from gazetteer.data.tables.images import decode_image

    try:
        content = read_regular(path)
        painted = decode_image(content).max(axis=2) > 0
        with Image.open(io.BytesIO(content)) as picture:
            if picture.format != "PNG":
                raise InputError(f"The mask {path} is a {picture.format}, which changes colours; save it as PNG.")
            if picture.has_transparency_data:
                painted &= np.asarray(picture.convert("RGBA"))[:, :, 3] > 0
            return painted
    except OSError as error:
        raise InputError(f"The mask {path} cannot be read: {error.strerror}.") from error

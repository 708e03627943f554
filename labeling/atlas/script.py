"""Data as plain scripts: a page opened from disk may load a script beside it, but not fetch a JSON file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError

_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
DATA = "data"


def to_script(key: str, value: Any) -> str:
    """The script that hands `value` to the page under `key`.

    Prompts and concepts are anybody's text: everything outside ASCII and every ``<``, ``>`` and ``&`` is written as an
    escape, so the script means the same wherever it is pasted or served. The page itself only ever makes text nodes.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"Atlas.put({json.dumps(key)},{text});\n"


def write_script(root: Path, key: str, value: Any) -> None:
    """Write ``<root>/data/<key>.js``."""
    path = root / DATA / f"{key}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_script(key, value), encoding="ascii")


def figure(value: float | None, digits: int = 4) -> float | int | None:
    """`value` with `digits` significant figures; None for a missing, infinite or undefined one."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def thousandths(value: float | None) -> int | None:
    """`value` in thousandths, the unit of the index; None for a missing or undefined one."""
    return None if value is None or not math.isfinite(value) else round(1000 * value)


def safe_ids(image_ids: list[str]) -> list[str]:
    """The ids as they came, once they are known to be safe and different file names.

    Raises:
        InputError: an id is no plain file name, or two differ in case only, which some file systems cannot tell apart.
    """
    seen: dict[str, str] = {}
    for image_id in image_ids:
        if not _SAFE_ID.fullmatch(image_id):
            raise InputError(
                f"The image id {image_id!r} cannot name a file; accepted: letters, digits, '-', '_' and '.', "
                "not starting with '.' or '-', at most 128 characters."
            )
        other = seen.setdefault(image_id.lower(), image_id)
        if other != image_id:
            raise InputError(
                f"The image ids {other!r} and {image_id!r} differ in case only; they cannot both name a file."
            )
    return image_ids


def safe_folder(text: str, taken: set[str]) -> str:
    """A folder name made from `text`, different (case aside) from those in `taken`, to which it is added."""
    base = _UNSAFE.sub("_", text).lstrip(".-") or "site"
    name, number = base, 2
    while name.lower() in taken:
        name, number = f"{base}~{number}", number + 1
    taken.add(name.lower())
    return name

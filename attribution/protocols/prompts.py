"""Prompts of a protocol, with the seed, guidance and size that their file states for each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_text

SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCES = ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance")
WIDTHS, HEIGHTS = ("sd_image_width",), ("sd_image_height",)
"""Columns by which published files state how each picture was made, in order of precedence: ``evaluation_*`` of ESD's
files, ``sd_*`` of I2P. (``width`` and ``height`` of COCO's files are those of the photograph.)"""
GUIDANCE = 7.5
"""Where neither the file nor the caller says one: the pipelines' default."""


@dataclass(frozen=True)
class ProtocolPrompt:
    """One prompt and how its picture is made.

    Attributes:
        seed: of its noise.
        guidance: the scale of classifier-free guidance.
        width, height: pixels; 0 is the model's own size.
        about: what it is about (a class), or nothing.
    """

    prompt: str
    seed: int
    guidance: float = GUIDANCE
    width: int = 0
    height: int = 0
    about: str = ""


@dataclass(frozen=True)
class PromptFile:
    """Prompts of a file, and by which convention each of seed, guidance and size was set (name -> a sentence)."""

    prompts: list[ProtocolPrompt]
    conventions: dict[str, str]


def read_prompt_file(
    path: str, column: str, *, seed: int | None = None, guidance: float | None = None, size: int | None = None,
    limit: int = 0,
) -> PromptFile:  # fmt: skip
    """Prompts of a CSV file; seed, guidance and size of each are the file's own where it states them.

    Args:
        column: that holds the prompts.
        seed, guidance, size: of every prompt, whatever the file states; size is width and height in pixels.
        limit: so many at most; 0 takes all.

    Where neither says it, the seed is 0, the guidance GUIDANCE and the size the model's.

    Raises:
        InputError: no such file or column, a column that is there twice, or a value that is not what it should be.
    """
    header, rows = _rows(path)
    rows = rows[:limit] if limit else rows
    if not rows or column not in header:
        raise InputError(f"The prompts {path} lack the column {column!r}; there is {', '.join(header) or 'no row'}.")
    given: dict[str, list[Any]] = {}
    conventions: dict[str, str] = {}
    for name, value, usual, columns, read in (
        ("seed", seed, 0, SEEDS, _seed), ("guidance", guidance, GUIDANCE, GUIDANCES, _guidance),
        ("width", size, 0, WIDTHS, _pixels), ("height", size, 0, HEIGHTS, _pixels),
    ):  # fmt: skip
        own = next((c for c in columns if c in header), "")
        if value is not None:
            conventions[name] = f"{value} for all prompts, as asked" + (f", not the file's {own}" if own else "")
        elif own:
            conventions[name] = f"the file's column {own}"
        else:
            conventions[name] = "the model's own" if read is _pixels else f"{usual} for all prompts: the file has none"
        given[name] = (
            [_value(path, row, number, own, read) for number, row in enumerate(rows, start=1)]
            if value is None and own
            else [usual if value is None else value] * len(rows)
        )
    prompts = [
        ProtocolPrompt(row[column], *made)
        for row, *made in zip(rows, *(given[n] for n in ("seed", "guidance", "width", "height")), strict=True)
    ]
    if any(bool(p.width) != bool(p.height) for p in prompts):
        raise InputError(f"The prompts {path} state a width or a height without the other; name one with --size.")
    return PromptFile(prompts, conventions)


def _rows(path: str) -> tuple[list[str], list[dict[str, str]]]:
    reader = csv.reader(io.StringIO(read_text("The file of prompts", path, "a CSV file with a header"), newline=""))
    try:
        header = next(reader, [])
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise InputError(f"The prompts {path} cannot be read: {error}.") from error
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"The prompts {path} have two columns {twice[0]!r}.")
    for number, line in lines:
        if len(line) != len(header):
            raise InputError(f"The prompts {path}: line {number} has {len(line)} values for {len(header)} columns.")
    return header, [dict(zip(header, line, strict=True)) for _, line in lines]


def _value(path: str, row: Mapping[str, str], number: int, column: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(row[column].strip())
    except (ValueError, OverflowError) as error:
        raise InputError(f"The prompts {path}, prompt {number}: {column} is {row[column]!r}, not {error}.") from error


def _seed(text: str) -> int:
    value = _whole(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError("a seed, which is a whole number of 64 bits")
    return value


def _pixels(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise ValueError("a number of pixels")
    return value


def _guidance(text: str) -> float:
    value = _float(text, "a guidance scale")
    if not 0 <= value < 1e6:  # nan too
        raise ValueError("a guidance scale")
    return value


def _whole(text: str) -> int:
    """A whole number, as tables write it that once held gaps (512.0) too."""
    try:
        return int(text)
    except ValueError:
        value = _float(text, "a whole number")
        if not value.is_integer() or abs(value) > 2**53:
            raise ValueError("a whole number") from None
        return int(value)


def _float(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(what) from None

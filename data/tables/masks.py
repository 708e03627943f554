"""Masks as COCO compressed run lengths, written and read by pycocotools.

What it lacks is added: it does not notice run lengths that do not add up (pixels that none of them covers hold whatever
was in memory before), so they are added up here before a string is decoded. The pixels are taken column by column;
counts alternate between background and mask, background first. From the fourth count on, the difference to the count
two before is kept. Each number is cut into groups of 5 bits, lowest first, the sign carried by the last; bit 6 says
"more follows", and 48 is added to make it printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from gazetteer.data.core.errors import InputError

MAX_PIXELS = 64 * 1024 * 1024
_GROUPS = 7  # 35 bits with sign: differences of counts up to 2**32 fit


def mask_to_struct(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode bool[H, W] as ``{"size": [h, w], "counts": str}``.

    Raises:
        InputError: another shape, no pixels, or over 64 Mpx.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise InputError(f"A mask has the shape [height, width], not {list(mask.shape)}.")
    height, width = _checked_size(mask.shape)
    counts: bytes = coco.encode(np.asfortranarray(mask != 0, dtype=np.uint8))["counts"]
    return {"size": [height, width], "counts": counts.decode("ascii")}


def struct_to_mask(struct: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode ``{"size": [h, w], "counts": str}`` to bool[H, W].

    Raises:
        InputError: the struct is corrupt, or its size is absurd.
    """
    try:
        size, counts = struct["size"], struct["counts"]
    except (KeyError, TypeError) as error:
        raise InputError("A mask needs the fields size and counts.") from error
    height, width = _checked_size(size)
    try:
        raw = counts if isinstance(counts, bytes) else counts.encode("ascii")
    except (AttributeError, UnicodeEncodeError) as error:
        raise InputError("Corrupt mask: its counts are not an ASCII string.") from error
    runs = _run_lengths(raw)
    if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise InputError(f"Corrupt mask: its run lengths do not add up to {height} × {width} pixels.")
    pixels: NDArray[np.bool_] = coco.decode({"size": [height, width], "counts": raw}).view(bool)
    return pixels


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError) as error:
        raise InputError(f"A mask's size is [height, width], not {size!r}.") from error
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"A mask of {height} × {width} pixels is not accepted; 1 to {MAX_PIXELS} pixels are.")
    return height, width


def _run_lengths(raw: bytes) -> NDArray[np.int64]:
    """Run lengths int64[runs] of a counts string; InputError when it is not one."""
    codes = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0)
    if codes.size == 0 or (codes < 0).any() or (codes > 63).any() or ends.size == 0 or ends[-1] != codes.size - 1:
        raise InputError("Corrupt mask: its counts are cut short or hold characters outside '0' to 'o'.")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _GROUPS:
        raise InputError("Corrupt mask: a run length is too large.")
    position = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * position), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values

"""Masks as COCO compressed run lengths: the strings pycocotools reads and writes, in plain numpy.

The pixels are taken column by column; counts alternate between background and mask, background first (a
leading 0 when the first pixel is mask). From the fourth count on, the difference to the count two before is
kept. Each number is cut into groups of 5 bits, lowest first, the sign carried by the last; bit 6 says "more
follows", and 48 is added to make it printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    pixels = (mask.T != 0).reshape(-1)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate([[0], changes, [pixels.size]])
    counts = np.diff(edges)
    if pixels[0]:
        counts = np.concatenate([[0], counts])
    return {"size": [height, width], "counts": _to_string(counts)}


def struct_to_mask(struct: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode ``{"size": [h, w], "counts": str}`` to bool[H, W].

    Raises:
        InputError: the struct is corrupt, or its size is absurd.
    """
    height, width, counts = _parsed(struct)
    inside = np.arange(counts.size) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def struct_area(struct: Mapping[str, Any]) -> int:
    """Mask pixels, without unpacking the mask; InputError when the struct is corrupt."""
    return int(_parsed(struct)[2][1::2].sum())


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError) as error:
        raise InputError(f"A mask's size is [height, width], not {size!r}.") from error
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"A mask of {height} × {width} pixels is not accepted; 1 to {MAX_PIXELS} pixels are.")
    return height, width


def _parsed(struct: Mapping[str, Any]) -> tuple[int, int, NDArray[np.int64]]:
    """Height, width and the checked run lengths int64[runs] of a struct."""
    try:
        size, text = struct["size"], struct["counts"]
    except (KeyError, TypeError) as error:
        raise InputError("A mask needs the fields size and counts.") from error
    height, width = _checked_size(size)
    counts = _from_string(text)
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        raise InputError(f"Corrupt mask: its run lengths do not add up to {height} × {width} pixels.")
    return height, width, counts


def _to_string(counts: NDArray[np.int64]) -> str:
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    shifts = 5 * np.arange(_GROUPS)
    groups = (values[:, None] >> shifts) & 0x1F
    # n groups hold the signed numbers of 5 n bits; a number needs as many as make it fit.
    reach = np.int64(1) << (shifts + 4)
    fits = (values[:, None] >= -reach) & (values[:, None] < reach)
    last = fits.argmax(axis=1)
    position = np.arange(_GROUPS)
    groups += np.where(position < last[:, None], 0x20, 0) + 48
    printable: bytes = groups[position <= last[:, None]].astype(np.uint8).tobytes()
    return printable.decode("ascii")


def _from_string(text: Any) -> NDArray[np.int64]:
    """Run lengths int64[runs] of a counts string; InputError when it is not one."""
    try:
        raw = text if isinstance(text, bytes) else text.encode("ascii")
    except (AttributeError, UnicodeEncodeError) as error:
        raise InputError("Corrupt mask: its counts are not an ASCII string.") from error
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

"""Pictures at rest: PNG bytes, checked when read back."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gazetteer.data.core.errors import InputError

MAX_PIXELS = 64 * 1024 * 1024
_FORMATS = ("PNG", "JPEG", "WEBP")
# Everything Pillow is known to raise on hostile or torn bytes.
_BROKEN = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
)


def to_uint8(pictures: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pictures as pipelines give them, floats 0..1 of any shape, as 8-bit numbers: round(255 x).

    Raises:
        ValueError: a value is not finite, or lies outside 0..1 and would wrap round.
    """
    if not np.isfinite(pictures).all() or pictures.min(initial=0.0) < 0.0 or pictures.max(initial=0.0) > 1.0:
        raise ValueError("the model produced a picture with values that are not finite or outside 0..1")
    return (pictures * 255.0).round().astype(np.uint8)


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of uint8[H, W, 3]; the same pixels always give the same bytes.

    Raises:
        InputError: another shape or type, or over 64 Mpx.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(f"An image is uint8[height, width, 3], not {pixels.dtype}{list(pixels.shape)}.")
    _check_size(pixels.shape[1], pixels.shape[0])
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels), "RGB").save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """uint8[H, W, 3] of a PNG, JPEG or WebP file, as its pixels are stored (not turned by what EXIF says).

    Raises:
        InputError: it is corrupt, of another format or over 64 Mpx.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as probe:
            _check_size(*probe.size)  # before a single pixel is unpacked
            probe.verify()
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            return np.array(eight_bits(picture).convert("RGB"))
    except _BROKEN as error:
        raise InputError(f"An image cannot be read ({error}); accepted: whole PNG, JPEG and WebP files.") from error


def eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits in 8, which converting to colours would cut off at 255; any other as it is."""
    if not picture.mode.startswith("I"):
        return picture
    pixels: NDArray[np.int64] = np.asarray(picture).astype(np.int64)
    return Image.fromarray((pixels // 257).clip(0, 255).astype(np.uint8))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"An image of {width} × {height} pixels is not accepted; up to {MAX_PIXELS} pixels are.")

"""A given picture with its masks, and how it gets the size of the model's pictures."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.tables.images import decode_image, eight_bits

Masks = NDArray[np.bool_]


class BadPicture(ValueError):
    """One given picture, or a mask of it, cannot be read or does not fit: it costs that picture, not the run."""


@dataclass(frozen=True)
class GivenPicture:
    """A picture and what people say is in it.

    Attributes:
        image: uint8 [H, W, 3].
        segments: (concept, bool mask [H, W]) of every instance, or of every concept where instances are not told apart.
        unasked: concepts of which nobody says whether, or where, this picture shows them; it has no segment of them.
        ignored: bool [H, W], pixels that nobody decided on, or None.
    """

    image: NDArray[np.uint8]
    segments: tuple[tuple[str, Masks], ...]
    unasked: frozenset[str] = frozenset()
    ignored: Masks | None = None

    def fitted(self, height: int, width: int, how: str) -> GivenPicture:
        """The same at another size, ``crop``ped in the middle to its shape first, or ``squash``ed to it.

        A segment that is too small for any pixel there keeps the one in which its middle lies: without it the picture
        would say that what is there is not. What was cut off is gone.
        """
        size = self.image.shape[:2]
        box = (0, 0, size[1], size[0])
        if how == "crop":
            scale = min(size[0] / height, size[1] / width)
            tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
            top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
            box = (left, top, left + wide, top + tall)

        def resized(pixels: NDArray[Any], how: Image.Resampling) -> NDArray[Any]:
            return np.asarray(Image.fromarray(pixels).resize((width, height), how, box=box))

        def mask(pixels: Masks) -> Masks:
            return resized(pixels.astype(np.uint8), Image.Resampling.NEAREST) > 0

        def kept(pixels: Masks) -> Masks:
            small = mask(pixels)
            left, top, right, bottom = box
            rows, columns = np.nonzero(pixels[top:bottom, left:right]) if not small.any() else ((), ())
            if len(rows):
                row, column = (np.mean(rows) + 0.5) / (bottom - top), (np.mean(columns) + 0.5) / (right - left)
                small = small.copy()
                small[int(row * height), int(column * width)] = True
            return small

        masks = [(concept, kept(pixels)) for concept, pixels in self.segments]
        return replace(
            self,
            image=resized(self.image, Image.Resampling.LANCZOS),
            segments=tuple((concept, pixels) for concept, pixels in masks if pixels.any()),
            ignored=None if self.ignored is None else mask(self.ignored),
        )


class GivenPictures(Protocol):
    """A data set of pictures with masks.

    Attributes:
        concepts: its categories, sorted.
        uncertain: those that some picture leaves unasked; the others are known of every picture.
        keys: what names its pictures, sorted.
        notes: sentences about what of it is not used, and what is doubtful.
    """

    concepts: tuple[str, ...]
    uncertain: frozenset[str]
    keys: tuple[str, ...]
    notes: tuple[str, ...]

    def caption(self, key: str) -> str:
        """What is said of a picture; empty where nothing is."""
        ...

    def files(self, key: str) -> tuple[Path, ...]:
        """What `read` reads of a picture's own, whether it is there or not: the picture, then its masks."""
        ...

    def read(self, key: str) -> GivenPicture:
        """A picture with its masks; InputError when its files are missing or do not fit each other."""
        ...


def concept_name(name: str) -> str:
    """A category's name as a concept: its first synonym, NFKC, in lower case, with single spaces and no full stop."""
    first = re.split(r"[,;]", unicodedata.normalize("NFKC", name))[0]
    return " ".join(first.replace("_", " ").replace(".", " ").lower().split())


def read_picture(path: Path, size: tuple[int | None, int | None] | None = None) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of a file, as people see it (`seen_picture`); InputError when it is missing or no picture."""
    require_file("The picture", path)
    try:
        return seen_picture(path.read_bytes(), size)
    except OSError as error:
        raise InputError(f"The picture {path} cannot be read ({error.strerror}).") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def seen_picture(content: bytes, size: tuple[int | None, int | None] | None = None) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of a PNG, JPEG or WebP file; InputError when it is none.

    size: of its masks, (H, W). A camera may store a picture lying on its side and say so (EXIF); people see it turned,
        and so it is read, unless only the stored pixels have this size.
    """
    pixels = decode_image(content)
    with Image.open(io.BytesIO(content)) as stored:
        if stored.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return pixels
        turned = np.array(eight_bits(ImageOps.exif_transpose(stored)).convert("RGB"))
    return pixels if size == pixels.shape[:2] != turned.shape[:2] else turned


def mask_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of a mask's file; None where it cannot be read, which `read_index_mask` says."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def picture_files(folder: Path, key: str) -> list[Path]:
    """The pictures of this name without its suffix: one, if all is well; where there is none, a place for it."""
    files = [folder / f"{key}{suffix}" for suffix in (".jpg", ".jpeg", ".png", ".webp")]
    return [file for file in files if file.is_file()] or files[:1]


def picture_file(folder: Path, key: str) -> Path:
    """The picture of this name without its suffix; InputError when there is none, or more than one."""
    files = picture_files(folder, key)
    if not files[0].is_file():
        raise InputError(f"{folder} has no picture {key}.")
    if len(files) > 1:
        raise InputError(f"{folder} has two pictures {key}, {files[0].name} and {files[1].name}; rename one of them.")
    return files[0]


def read_index_mask(path: Path, size: tuple[int, int]) -> NDArray[np.int64]:
    """The numbers of a PNG of classes or instances, int64 [H, W]; of a palette its indices, not its colours.

    Raises:
        InputError: it is missing, has colours instead of numbers, or another size than the picture, (H, W).
    """
    require_file("The mask", path)
    try:
        with Image.open(path) as picture:
            if picture.format == "JPEG":
                raise InputError(f"{path} is a JPEG, which changes the numbers along every edge; save masks as PNG.")
            if picture.mode not in ("P", "L", "I", "I;16", "1"):
                raise InputError(f"{path} holds colours ({picture.mode}), where numbers of classes are needed.")
            pixels = np.array(picture).astype(np.int64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"The mask {path} cannot be read ({error}).") from error
    if pixels.shape != size:
        raise InputError(f"The mask {path} has {list(pixels.shape)} pixels, its picture {list(size)}.")
    return pixels


def expect_folder(path: str | Path, what: str, needed: Sequence[str]) -> Path:
    """The folder, if the entries `needed` are in it; InputError in one sentence otherwise."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{what} {path} is no folder; it needs one with {', '.join(needed)}.")
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise InputError(f"{what} {path} has no {missing[0]}; it needs {', '.join(needed)}.")
    return folder

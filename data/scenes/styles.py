"""Styles change the look of a finished picture; who owns which pixel stays as it is.

Every function takes and returns a picture of floats in [0, 1], [H, W, 3]; `owners` [H, W] numbers
the items from 1, `things` lists the numbers of countable things and `sky` that of the sky (or 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ground:
    """What the styles may know about a picture: owners [H, W] and which of them are what."""

    owners: NDArray[np.uint8]
    things: tuple[int, ...]
    sky: int
    lights: tuple[int, ...]

    def mask(self, numbers: tuple[int, ...]) -> NDArray[np.bool_]:
        """Pixels [H, W] owned by any of the given items."""
        table = np.zeros(256, dtype=bool)
        table[list(numbers)] = True
        return table[self.owners]


def apply_style(style: str | None, picture: NDArray[np.uint8], ground: Ground, seed: int) -> NDArray[np.uint8]:
    """Return the uint8 picture [H, W, 3] in the given style; None leaves it plain.

    Looks differ from one another while things stand out from their ground as they do in plain pictures: of two looks
    alike otherwise, a denoiser draws the fainter one worse.
    """
    if style is None:
        return picture
    floats = picture.astype(np.float32) / np.float32(255)
    styled = _STYLES[style](floats, ground, np.random.default_rng(seed))
    return (np.clip(styled, 0, 1) * 255 + 0.5).astype(np.uint8)


def _grey(picture: Picture) -> Picture:
    return picture @ np.array([0.3, 0.59, 0.11], dtype=np.float32)


def _blur(plane: Picture, radius: float) -> Picture:
    """Gaussian blur of one plane [H, W] of values in [0, 1]."""
    image = Image.fromarray((np.clip(plane, 0, 1) * 255).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, dtype=np.float32) / np.float32(255)


def _borders(owners: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels [H, W] whose right or lower neighbour belongs to something else."""
    border = np.zeros(owners.shape, dtype=bool)
    border[:, :-1] |= owners[:, :-1] != owners[:, 1:]
    border[:-1] |= owners[:-1] != owners[1:]
    return border


def _top_rim(mask: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Pixels [H, W] of the mask within `thickness` rows of its upper edge."""
    above = np.zeros_like(mask)
    above[thickness:] = mask[:-thickness]
    return mask & ~above


def _scale(ground: Ground) -> int:
    """How many pixels of this picture make one pixel at 128."""
    return max(1, round(ground.owners.shape[0] / 128))


def _night(picture: Picture, ground: Ground, rng: np.random.Generator) -> Picture:
    sky, lights = ground.mask((ground.sky,)) if ground.sky else None, ground.mask(ground.lights)
    dark = picture * np.array([0.60, 0.66, 0.82], dtype=np.float32) + np.array([0.01, 0.015, 0.05], dtype=np.float32)
    if sky is not None:
        height = np.linspace(0, 1, picture.shape[0], dtype=np.float32)[:, None, None]
        deep = np.array([0.02, 0.03, 0.12], np.float32) + height * np.array([0.07, 0.10, 0.22], np.float32)
        dark = np.where(sky[..., None], deep + dark * 0.08, dark)
        stars = sky & (rng.random(sky.shape, dtype=np.float32) < 0.006)
        dark[stars] = (0.95, 0.95, 0.85)
    rim = _top_rim(ground.mask(ground.things), _scale(ground))
    dark[rim] = dark[rim] * 0.5 + np.array([0.3, 0.35, 0.45], dtype=np.float32)
    glow = _blur(lights.astype(np.float32), 7.0 * _scale(ground))[..., None]
    dark = dark + glow * np.array([0.28, 0.28, 0.32], dtype=np.float32)
    dark[lights] = picture[lights] * 0.95
    return dark


def _sunset(picture: Picture, ground: Ground, rng: np.random.Generator) -> Picture:
    height = np.linspace(0, 1, picture.shape[0], dtype=np.float32)[:, None, None]
    lights, sky = ground.mask(ground.lights), ground.mask((ground.sky,)) & (ground.owners > 0)
    warm = picture * np.array([0.86, 0.52, 0.46], dtype=np.float32) + np.array([0.08, 0.01, 0.05], dtype=np.float32)
    low = max(0.25, float(np.flatnonzero(sky.any(axis=1)).max(initial=0)) / picture.shape[0])
    t = np.clip(height / low, 0, 1)
    high_tone = np.array([0.42, 0.20, 0.46], np.float32) + rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    low_tone = np.array([1.0, 0.62, 0.26], np.float32)
    warm = np.where(sky[..., None], high_tone * (1 - t) + low_tone * t + (picture - 0.7) * 0.12, warm)
    rim = _top_rim(ground.mask(ground.things), _scale(ground))
    warm[rim] = warm[rim] * 0.5 + np.array([0.5, 0.34, 0.15], dtype=np.float32)
    glow = _blur(lights.astype(np.float32), 9.0 * _scale(ground))[..., None]
    warm = warm + glow * np.array([0.35, 0.2, 0.05], dtype=np.float32)
    warm[lights] = picture[lights] * np.array([1.0, 0.82, 0.6], np.float32) + np.float32(0.04)
    return warm


def _sketch(picture: Picture, ground: Ground, rng: np.random.Generator) -> Picture:
    grey = _grey(picture)
    size = grey.shape[0]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(128 / size)
    paper = np.float32(0.96) + rng.normal(0, 0.012, grey.shape).astype(np.float32)
    hatch = 0.5 + 0.5 * np.sin((rows + columns) * np.float32(1.5))
    tone = np.clip((0.94 - grey) * 1.35, 0, 1)
    sketch = paper - tone * (0.72 + 0.24 * hatch)
    slope = np.zeros_like(grey)
    slope[:, 1:] += np.abs(np.diff(grey, axis=1))
    slope[1:] += np.abs(np.diff(grey, axis=0))
    lines = np.maximum(np.clip(slope * 2.2, 0, 0.5), _borders(ground.owners) * np.float32(0.72))
    sketch = np.clip(sketch - lines, 0.06, 1)
    return sketch[..., None] * np.array([1.0, 0.99, 0.95], dtype=np.float32)


def _watercolour(picture: Picture, ground: Ground, rng: np.random.Generator) -> Picture:
    size = picture.shape[0]
    image = Image.fromarray((picture * 255).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8 * _scale(ground))), np.float32) / 255
    blotches = Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8))
    pigment = np.asarray(blotches.resize((size, size), Image.Resampling.BICUBIC), np.float32)[..., None] / 255
    grey = _grey(soft)[..., None]
    pale = 1 - (1 - (grey + (soft - grey) * 1.25)) * (0.50 + 0.38 * pigment)
    edge = _blur(_borders(ground.owners).astype(np.float32), 0.9 * _scale(ground))[..., None]
    pale = pale - edge * (1.02 - soft) * 0.55
    across = np.abs(np.linspace(-1, 1, size, dtype=np.float32))
    frame = np.maximum(across[:, None], across[None, :])[..., None]
    white = np.clip((frame + (pigment - 0.5) * 0.10 - 0.93) * 12, 0, 1)
    pale = pale * (1 - white) + np.array([0.985, 0.98, 0.96], np.float32) * white
    return pale + rng.normal(0, 0.012, (size, size, 1)).astype(np.float32)


def _winter(picture: Picture, ground: Ground, rng: np.random.Generator) -> Picture:
    things = ground.mask(ground.things)
    sky, lights = ground.mask((ground.sky,)) & (ground.owners > 0), ground.mask(ground.lights)
    grey = _grey(picture)[..., None]
    cool = np.array([0.90, 0.97, 1.04], np.float32)
    faded = (grey + (picture - grey) * 0.7) * cool
    snow = np.array([0.90, 0.94, 1.0], np.float32) * (0.3 + grey)
    cold = np.where((~things & ~sky)[..., None], faded * 0.30 + snow * 0.75, picture * cool)
    cold = np.where(sky[..., None], faded * 0.35 + np.array([0.18, 0.26, 0.40], np.float32), cold)
    cap = _top_rim(things & ~lights, 3 * _scale(ground))
    cold[cap] = (0.97, 0.98, 1.0)
    flakes = rng.random(things.shape, dtype=np.float32) < 0.009
    cold[flakes] = 1.0
    return cold


def _neon(picture: Picture, ground: Ground, rng: np.random.Generator) -> Picture:
    peak = picture.max(axis=2, keepdims=True)
    floor = picture.min(axis=2, keepdims=True)
    hue = (picture - floor) / np.maximum(peak - floor, 0.08)
    tint = np.array([0.35, 0.9, 1.0], np.float32) if rng.random() < 0.5 else np.array([1.0, 0.35, 0.9], np.float32)
    saturation = np.clip((peak - floor) * 4, 0, 1)
    hue = hue * saturation + tint * (1 - saturation)
    lines = _borders(ground.owners).astype(np.float32)
    lines[:, 1:] = np.maximum(lines[:, 1:], lines[:, :-1])
    grey = _grey(picture)
    slope = np.zeros_like(grey)
    slope[1:] += np.abs(np.diff(grey, axis=0))
    slope[:, 1:] += np.abs(np.diff(grey, axis=1))
    lines = np.maximum(lines, np.clip(slope * 2.5 - 0.25, 0, 0.8))
    glow = _blur(lines, 2.5 * _scale(ground))
    dark = picture * np.array([0.14, 0.09, 0.24], np.float32) + np.array([0.02, 0.01, 0.06], np.float32)
    dark = dark + hue * (ground.mask(ground.things)[..., None] * np.float32(0.5))
    return dark + hue * (lines[..., None] * 0.95 + glow[..., None] * 0.9)


_STYLES: dict[str, Callable[[Picture, Ground, np.random.Generator], Picture]] = {
    "night": _night,
    "sunset": _sunset,
    "pencil sketch": _sketch,
    "watercolour": _watercolour,
    "winter": _winter,
    "neon": _neon,
}

"""Numbers for what an edit did to a picture: where a thing went, how much changed, and how sure a mean is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Interval = list[float | None]


def centre_of_mass(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """x, y of a mask bool [height, width] as shares of width and height; None when it is empty."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    height, width = mask.shape
    return float(columns.mean() + 0.5) / width, float(rows.mean() + 0.5) / height


def score_centre(boxes: Sequence[tuple[Sequence[float], float]], height: int, width: int) -> tuple[float, float] | None:
    """x, y (shares) of the centre of mass of a score map: in every pixel the highest score of a box that holds it.

    In the place of P1's CLIPSeg map: it needs no threshold to be passed, only some box, however weak.

    Args:
        boxes: (x0, y0, x1, y1 in px, score) of one concept.
    """
    scores = np.zeros((height, width))
    for (x0, y0, x1, y1), score in boxes:
        part = scores[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))]
        np.maximum(part, score, out=part)
    total = scores.sum()
    if total <= 0.0:
        return None
    x = scores.sum(axis=0) @ (np.arange(width) + 0.5) / total / width
    return float(x), float(scores.sum(axis=1) @ (np.arange(height) + 0.5) / total / height)


def in_box(centre: tuple[float, float] | None, box: Sequence[float]) -> bool:
    """Whether a centre lies in a box x0, y0, x1, y1 of shares (P1 Table 4); None does not."""
    return centre is not None and bool(box[0] <= centre[0] < box[2] and box[1] <= centre[1] < box[3])


def lands_in(mask: NDArray[np.bool_], box: Sequence[float]) -> bool:
    """Whether a mask's centre of mass lies in a box; an empty one does not."""
    return in_box(centre_of_mass(mask), box)


def mask_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 0 when both are empty."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def structural_distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """1 − SSIM, 0 for equal pictures: what stands in for LPIPS here, as it needs no network and no download.

    Mean over 7 × 7 windows and the three colours of uint8 [height, width, 3] pictures, at full and half size
    (Wang et al. 2004, with a uniform window and their K1 = 0.01, K2 = 0.03).
    """
    a, b = one.astype(np.float64) / 255.0, other.astype(np.float64) / 255.0
    found = []
    for _ in range(2):
        found.append(_ssim(a, b))
        a, b = _halved(a), _halved(b)
    return 1.0 - float(np.mean(found))


def _halved(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    def mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth: NDArray[np.float64] = uniform_filter(x, size=(7, 7, 1))
        return smooth

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, both = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def outside_change(one: NDArray[np.uint8], other: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float:
    """Mean absolute difference of two pictures outside bool [height, width], in shares of the full scale."""
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).mean(axis=2) / 255.0
    return float(difference[~inside].mean()) if (~inside).any() else 0.0


def interval(values: Sequence[float], groups: Sequence[Hashable], resamples: int = 2000) -> Interval:
    """Mean and 95 % bootstrap interval [mean, low, high]; whole groups (prompts) are drawn with replacement.

    Empty input gives None three times.
    """
    if not len(values):
        return [None] * 3
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    member = np.array([names[group] for group in groups])
    sums = np.bincount(member, weights=np.asarray(values, float))
    counts = np.bincount(member).astype(float)
    drawn = np.random.default_rng(0).integers(0, len(names), (resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(v), 4) for v in (np.mean(values), low, high)]

"""Numbers for what an edit did to a picture: where a thing went, and how much changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 0 when both are empty."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def structural_distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """1 − SSIM, 0 for equal pictures: what stands in for LPIPS here, as it needs no network and no download.

    Mean over 7 × 7 windows and the three colours of uint8 [height, width, 3] pictures, at full and half size
    (Wang et al. 2004, with a uniform window and their K1 = 0.01, K2 = 0.03).
    """
    from skimage.metrics import structural_similarity
    from skimage.transform import downscale_local_mean

    a, b = first.astype(np.float64), second.astype(np.float64)
    likeness = []
    for _ in range(2):
        side = min(a.shape[:2])
        window = min(7, side - 1 + side % 2)  # odd, and no larger than the picture
        likeness.append(
            structural_similarity(a, b, win_size=window, channel_axis=2, data_range=255.0, use_sample_covariance=False)
        )
        height, width = (length // 2 * 2 for length in a.shape[:2])
        a, b = (downscale_local_mean(picture[:height, :width], (2, 2, 1)) for picture in (a, b))
    return 1.0 - float(np.mean(likeness))


def outside_change(first: NDArray[np.uint8], second: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float:
    """Mean absolute difference of two pictures outside bool [height, width], in shares of the full scale."""
    difference = np.abs(first.astype(np.float64) - second.astype(np.float64)).mean(axis=2) / 255.0
    return float(difference[~inside].mean()) if (~inside).any() else 0.0

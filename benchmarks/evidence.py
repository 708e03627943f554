"""Exact IoU on the grid: the pooled sparse product against upsampling and comparing every active map.

Both run side by side on the same synthetic shard; CPU seconds, best of several; the ratio is what to rely on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import _checkout  # noqa: F401
import numpy as np

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=5120)
    parser.add_argument("--grid", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    shard = make_shard(arguments)
    pooled = cpu_seconds(lambda: build_evidence(shard), repeats=5)
    literal = cpu_seconds(lambda: upsample_and_compare(shard), repeats=2)
    result = {"pooled_s": pooled, "literal_s": literal, "ratio": literal / pooled, "images": arguments.images}
    print(f"pooled product {pooled:.4f} s, upsample and compare {literal:.2f} s: {literal / pooled:.0f} times")
    if arguments.json:
        print(json.dumps(result))


def make_shard(arguments: argparse.Namespace, k: int = 10) -> list[ImageEvidenceInput]:
    """Random codes and random rectangles."""
    random = np.random.default_rng(0)
    grid, size = arguments.grid, arguments.size
    shard = []
    for number in range(arguments.images):
        feature = np.stack([random.choice(arguments.features, k, replace=False) for _ in range(grid * grid)])
        code = SparseMap(
            grid, grid, k, feature.astype(np.uint32).ravel(), random.random(grid * grid * k).astype(np.float16)
        )
        segments = []
        for which in range(arguments.masks):
            mask = np.zeros((size, size), bool)
            top, left = random.integers(0, size // 2, 2)
            mask[top : top + size // 3, left : left + size // 3] = True
            segments.append((f"concept {which}", mask))
        asked = tuple(sorted(name for name, _ in segments))
        shard.append(
            ImageEvidenceInput(
                f"image {number}", "discovery", (size, size), asked, segments, {Site("mid", "cond", 0.5): code}
            )
        )
    return shard


def upsample_and_compare(shard: list[ImageEvidenceInput]) -> int:
    """The direct way: every active feature's support at full size, compared with every mask; sum of intersections."""
    total = 0
    for image in shard:
        for code in image.codes.values():
            cells = np.repeat(np.arange(code.height * code.width), code.k)
            for feature in np.unique(code.feature):
                support = np.zeros(code.height * code.width, bool)
                support[cells[(code.feature == feature) & (code.value > 0)]] = True
                scale = image.size[0] // code.height
                full = support.reshape(code.height, code.width).repeat(scale, 0).repeat(scale, 1)
                total += sum(int((full & mask).sum()) for _, mask in image.segments)
    return total


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


if __name__ == "__main__":
    main()

"""Rendered scenes on disk as memory-mapped arrays, so that a training loop never waits for the painter.

`python -m benchmarks.scenes.training.scene_cache --out build/train/scenes --count 12000`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.options import add_views
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import CONCEPT_NAMES
from gazetteer.data.storage.lock import hold

MAX_INSTANCES = 16


@dataclass(frozen=True, eq=False)
class SceneCache:
    """`count` scenes of consecutive seeds.

    images: uint8 [count, size, size, 3].
    owners: uint8 [count, size, size], 0 where no instance is visible, else 1 + instance index.
    concepts: int8 [count, MAX_INSTANCES], index into `CONCEPT_NAMES`, -1 where there is no instance.
    """

    first_seed: int
    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    concepts: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.images)


def write(folder: Path, first_seed: int, count: int, views: Sequence[str] = (), size: int = 128) -> None:
    """Render `count` scenes, seen from `views`, into `folder`; `meta.json` comes last and marks it complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
    owners = np.lib.format.open_memmap(folder / "owners.npy", "w+", np.uint8, (count, size, size))
    concepts = np.full((count, MAX_INSTANCES), -1, np.int8)
    for row in range(count):
        scene = render(first_seed + row, size, views)
        images[row] = scene.image
        for number, instance in enumerate(scene.instances[:MAX_INSTANCES]):
            owners[row][instance.mask] = number + 1
            concepts[row, number] = CONCEPT_NAMES.index(instance.concept)
    images.flush()
    owners.flush()
    np.save(folder / "concepts.npy", concepts)
    (folder / "meta.json").write_text(json.dumps(_meta(first_seed, count, views)))


def _meta(first_seed: int, count: int, views: Sequence[str]) -> dict[str, object]:
    return {"first_seed": first_seed, "count": count, "views": list(views)}


def read(folder: Path) -> SceneCache:
    """Map a finished cache into memory; raises FileNotFoundError when it is missing or unfinished."""
    meta = json.loads((folder / "meta.json").read_text())
    return SceneCache(
        meta["first_seed"],
        np.load(folder / "images.npy", mmap_mode="r"),
        np.load(folder / "owners.npy", mmap_mode="r"),
        np.load(folder / "concepts.npy"),
    )


def read_or_write(folder: Path, first_seed: int, count: int, views: Sequence[str] = ()) -> SceneCache:
    """The cache of these seeds and views, rendered first if `folder` does not hold it; by one of those who ask."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = hold(folder.with_name(f"{folder.name}.lock"))
    try:
        meta = folder / "meta.json"
        if not meta.exists() or json.loads(meta.read_text()) != _meta(first_seed, count, views):
            write(folder, first_seed, count, views)
        return read(folder)
    finally:
        lock.release()


def main() -> None:
    """Render a cache from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=12000)
    add_views(parser)
    arguments = parser.parse_args()
    read_or_write(arguments.out, arguments.first_seed, arguments.count, arguments.views)


if __name__ == "__main__":
    main()

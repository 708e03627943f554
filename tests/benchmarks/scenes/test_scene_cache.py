"""Rendered scenes kept on disk: what is read back, and two who ask for the same at once."""

import threading
from pathlib import Path

import numpy as np

from benchmarks.scenes.training.scene_cache import read_or_write
from gazetteer.data.scenes.render import render
from gazetteer.data.storage.lock import hold


def test_scenes_are_read_as_they_are_rendered(tmp_path: Path) -> None:
    cache = read_or_write(tmp_path / "made" / "scenes", 7, 3, ("above",))
    assert len(cache) == 3
    assert np.array_equal(cache.images[2], render(9, 128, ("above",)).image)
    other = read_or_write(tmp_path / "made" / "scenes", 20, 1)
    assert len(other) == 1 and np.array_equal(other.images[0], render(20, 128, ()).image)


def test_who_asks_while_another_renders_waits(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    lock = hold(tmp_path / "scenes.lock")
    caches: list[int] = []
    asking = threading.Thread(target=lambda: caches.append(len(read_or_write(folder, 0, 2))))
    asking.start()
    asking.join(0.5)
    assert asking.is_alive() and not folder.exists()
    lock.release()
    asking.join(60)
    assert caches == [2]

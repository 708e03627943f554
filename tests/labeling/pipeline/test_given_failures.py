"""A given picture that cannot be read costs itself alone and may be mended; another than before is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gazetteer.data.core.digests import digest_path
from gazetteer.data.inputs.given.contents import recorded
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.operate.verify import verify
from tests.data.inputs.given.folders import rle
from tests.support.system.running import FEW, in_process

PICTURES = 6
SETTINGS = [
    *FEW, "detector.path=/nowhere", "segmenter.path=/nowhere", "executor=serial", "images=100", "shard_size=2",
    "max_failed_fraction=0.5",
]  # fmt: skip


def paint(file: Path, seed: int) -> bytes:
    """A random PNG, as long as every other one."""
    pixels = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, compress_level=0)
    return file.read_bytes()


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Pictures with a cat on their left half, of which a folder holds the JSON and another the pictures."""
    left = np.zeros((128, 128), bool)
    left[:, :64] = True
    images, annotations = [], []
    for i in range(PICTURES):
        paint(tmp_path / "coco" / "images" / f"{i}.png", i)
        images.append({"id": i, "file_name": f"{i}.png", "height": 128, "width": 128})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "segmentation": rle(left)})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "coco" / "val.json").write_text(json.dumps(content))
    return tmp_path / "coco"


def label(run: Path, pictures: Path, *words: str, settings: Sequence[str] = ()) -> tuple[int, str]:
    done = in_process("label", str(run), *words, "--set", *SETTINGS, f"pictures.coco={pictures}", *settings)
    return done.returncode, done.stderr


@pytest.mark.parametrize("named", ["", "val.json"])
def test_a_bad_picture_costs_one_picture_and_is_mended(coco: Path, tmp_path: Path, named: str) -> None:
    run, bad = tmp_path / "run", coco / "images" / "0.png"  # the first, by which their folder is known
    whole = bad.read_bytes()
    bad.write_bytes(whole[:2000])
    assert label(run, coco / named)[0] == 3
    (failure,) = pq.read_table(run / "failures").to_pylist()
    assert (failure["stage"], failure["error"]) == ("generate", "BadPicture") and "0.png" in failure["message"]
    assert pq.read_table(run / "images").num_rows == PICTURES - 1
    assert label(run, coco / named, "--retry-failed")[0] == 3, "it is still as bad"
    bad.write_bytes(whole)
    assert label(run, coco / named)[0] == 3, "without --retry-failed nothing is tried again"
    assert label(run, coco / named, "--retry-failed")[0] == 0
    assert pq.read_table(run / "images").num_rows == PICTURES and verify(run)["verdict"] == "sound"
    bad.unlink()
    assert label(tmp_path / "other", coco / named)[0] == 3, "nor does a missing one cost more"


@pytest.mark.parametrize("named", ["", "val.json"])
def test_another_picture_than_the_run_was_started_with_is_refused(coco: Path, tmp_path: Path, named: str) -> None:
    """By its content, whatever is said of its time: no run mixes two data sets."""
    run = tmp_path / "run"
    assert label(run, coco / named)[0] == 0
    lost = sorted((run / "images").glob("*.parquet"))[0]
    mine = set(pq.read_table(lost)["image_id"].to_pylist())
    seeds = {row["image_id"]: row["seed"] for row in pq.read_table(run / "images").to_pylist()}
    lost.unlink()
    (run / "_meta" / "_SUCCESS").unlink()
    before = recorded(RunFolder(run))
    assert set(before) == set(seeds) > mine
    status = {file: (file.stat(), file.read_bytes()) for file in sorted((coco / "images").iterdir())}
    for kept_time in (False, True):
        for i, (file, (stat, _)) in enumerate(status.items()):
            paint(file, 100 + i)
            if kept_time:
                os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        code, said = label(run, coco / named)
        assert code == 2 and "is not what this run was started with" in said and ".png" in said
    for file, (stat, content) in status.items():
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert label(run, coco / named)[0] == 0 and recorded(RunFolder(run)) == before


@pytest.mark.parametrize("images", ["", "images"])
def test_a_run_that_was_begun_when_folders_were_digested_whole_goes_on(
    coco: Path, tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a record of contents; as long as nothing in the folders changes."""
    run, beside = tmp_path / "run", [f"pictures.images={coco / images}"] if images else []

    def before(config: RunConfig) -> dict[str, Any]:
        whole = {"pictures.coco": coco, **({"pictures.images": coco / images} if images else {})}
        return {**fingerprint_of(config), **{key: digest_path(str(folder)) for key, folder in whole.items()}}

    with monkeypatch.context() as patch:
        patch.setattr("gazetteer.jobs.label.job.fingerprint_of", before)
        assert label(run, coco, settings=beside)[0] == 0
    (run / "_meta" / "given.json").unlink()
    sorted((run / "images").glob("*.parquet"))[0].unlink()
    (run / "_meta" / "_SUCCESS").unlink()
    assert label(run, coco, settings=beside)[0] == 0 and recorded(RunFolder(run))
    paint(coco / "images" / "0.png", 9)
    code, said = label(run, coco, settings=beside)
    assert code == 2 and "pictures.coco: was" in said

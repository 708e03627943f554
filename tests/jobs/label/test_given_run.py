"""A run on given pictures: exact masks of rendered scenes, the same as COCO, and an export that is labelled again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.scenes.truth import write_truth
from gazetteer.labeling.tables import load_candidates, load_images, load_segments
from tests.support.system.running import FEW, in_process

COUNTS = ["feature", "concept", "images_feature", "images_concept", "images_both", "hits", "dataset_iou", "precision"]


def label(out: Path, *settings: str) -> None:
    """A run of one site and few steps on given pictures, without the models that find things."""
    nothing = ["detector.path=/nowhere", "segmenter.path=/nowhere", "executor=serial", "images=100"]
    done = in_process("label", str(out), "--set", *FEW, *nothing, *settings)
    assert done.returncode == 0, done.stderr


def numbers(run: Path) -> list[tuple]:
    """What was counted of every pair."""
    rows = load_candidates(run, columns=COUNTS).to_pylist()
    # Sums of the same numbers in another order may differ in their last bits.
    rows = [{name: round(v, 9) if isinstance(v := row[name], float) else v for name in COUNTS} for row in rows]
    return sorted(tuple(row[name] for name in COUNTS) for row in rows)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes with exact masks."""
    folder = tmp_path_factory.mktemp("exact") / "exact"
    write_truth(folder, 16)
    return folder


def test_labels_of_exact_masks_are_those_of_the_same_as_coco_and_come_again_from_an_export(
    exact: Path, tmp_path: Path
) -> None:
    label(tmp_path / "table", f"pictures.table={exact}")
    images = load_images(tmp_path / "table")
    assert images.num_rows == 16 and set(images["split"].to_pylist()) == {"discovery", "heldout"}
    assert all(len(asked) == 16 for asked in images["asked"].to_pylist())
    assert (
        in_process("export", str(tmp_path / "table"), "--coco", str(tmp_path / "coco" / "scenes.json")).returncode == 0
    )
    # The run's own tables are a data set too; of both the pictures have the same names, and so the same noise.
    label(tmp_path / "again", f"pictures.table={tmp_path / 'table'}")
    label(tmp_path / "coco_run", f"pictures.coco={tmp_path / 'coco'}")
    assert numbers(tmp_path / "again") == numbers(tmp_path / "coco_run") != []
    first, last = (load_segments(tmp_path / name).to_pylist() for name in ("table", "coco_run"))
    masks = [sorted((row["concept"], row["area"], row["mask"]["counts"]) for row in some) for some in (first, last)]
    assert masks[0] == masks[1]
    prompts = [sorted(load_images(tmp_path / name)["prompt"].to_pylist()) for name in ("table", "coco_run")]
    assert prompts[0] == prompts[1] and all(prompts[0])


def test_a_run_on_given_pictures_resumes_and_says_what_it_cannot(exact: Path, tmp_path: Path) -> None:
    settings = ["--set", *FEW, "executor=serial", f"pictures.table={exact}", "images=8"]
    done = in_process("label", str(tmp_path / "run"), *settings)
    assert done.returncode == 0 and "8 pictures" in done.stdout
    before = numbers(tmp_path / "run")
    for part in (tmp_path / "run" / "segments").glob("*.parquet"):
        part.unlink()
        break
    assert in_process("verify", str(tmp_path / "run")).returncode != 0
    (tmp_path / "run" / "_meta" / "_SUCCESS").unlink()
    assert in_process("label", str(tmp_path / "run"), *settings).returncode == 0
    assert numbers(tmp_path / "run") == before and in_process("verify", str(tmp_path / "run")).returncode == 0
    wrong = in_process("label", str(tmp_path / "other"), "--reuse", str(tmp_path / "run"), *settings)
    assert wrong.returncode == 2 and "nothing for --reuse" in wrong.stderr
    empty = in_process("label", str(tmp_path / "plain"), *settings, "pictures.caption=empty")
    assert empty.returncode == 0 and set(load_images(tmp_path / "plain")["prompt"].to_pylist()) == {""}
    assert np.unique(load_images(tmp_path / "plain")["seed"]).size == 8

"""A run on given pictures: exact masks of rendered scenes, the same as COCO, and an export that is labelled again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.plain_yaml import read_yaml
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.scenes.truth import write_truth
from gazetteer.jobs.config.schema import DEFAULT_CONFIG, UNUSED, load_config
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.evidence.run_codes import all_codes
from gazetteer.labeling.tables import load_candidates, load_images, load_segments
from tests.data.inputs.given.folders import numbers as numbers_png
from tests.data.inputs.given.folders import picture
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


def test_what_given_pictures_do_not_use_may_be_left_out_and_is_not_looked_for(exact: Path, tmp_path: Path) -> None:
    raw = {key: value for key, value in read_yaml(DEFAULT_CONFIG.read_text(), "").items() if key not in UNUSED}
    for group, key in (("model", "path"), ("segmenter", "path")):
        raw[group][key] = str(DEFAULT_CONFIG.parent / raw[group][key])
    raw["saes"] = str(DEFAULT_CONFIG.parent / raw["saes"])
    (tmp_path / "mine.yaml").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="prompts"):
        load_config(tmp_path / "mine.yaml")
    given = f"pictures.table={exact}"
    assert load_config(tmp_path / "mine.yaml", [given]).detector.path == ""
    words = [str(tmp_path / "run"), "--config", str(tmp_path / "mine.yaml"), "--set", *FEW, given, "executor=serial"]
    done = in_process("label", *words, "images=4", "detector.path=nobody/nothing", "pictures.concepts=[dog, sky]")
    assert done.returncode == 0, done.stderr
    (loading,) = (line for line in done.stderr.splitlines() if line.startswith("loading "))
    assert "detector" not in loading and "segmenter" not in loading
    assert "prompts, vocabulary, detector and segmenter are not used; pictures.concepts chooses" in done.stderr
    assert in_process("plan", "--config", str(tmp_path / "mine.yaml"), "--set", given).returncode == 0
    with pytest.raises(InputError, match=r"^detector\.path is empty"):
        load_detector(load_config(tmp_path / "mine.yaml", [given]).detector)
    with pytest.raises(InputError, match=r"^prompts\.path is empty"):
        read_prompts(load_config(tmp_path / "mine.yaml", [given]).prompts)


def voc_folder(root: Path, pictures: int = 8) -> Path:
    """Random pictures with a cat in the upper left quarter, beside which a quarter is void."""
    for i in range(pictures):
        picture(root / "JPEGImages" / f"{i}.png", 128, 128, seed=i)
        classes = np.zeros((128, 128), np.uint8)
        classes[:64, :64], classes[:64, 64:] = 8, 255
        numbers_png(root / "SegmentationClass" / f"{i}.png", classes)
    return root


@pytest.mark.full
@pytest.mark.alone
def test_given_pictures_come_to_the_same_tables_under_ray(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    label(tmp_path / "run", f"pictures.voc={voc}", "pictures.concepts=[cat]", "executor=ray", "workers=1")
    label(tmp_path / "serial", f"pictures.voc={voc}", "pictures.concepts=[cat]")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "serial") != []


def test_what_nobody_decided_on_counts_for_and_against_nothing(tmp_path: Path) -> None:
    """What fires in the void quarter is marked, and in no precision."""
    voc = voc_folder(tmp_path / "voc")
    label(tmp_path / "run", f"pictures.voc={voc}", "pictures.concepts=[cat]")
    ((_, every),) = all_codes(RunFolder(tmp_path / "run"))
    codes = every.judged()
    assert len(codes.cell) < len(every.cell)
    fired = np.bincount(codes.cell, minlength=codes.cells).reshape(codes.height, codes.width) > 0
    half = codes.height // 2
    assert not fired[:half, half:].any() and fired[:half, :half].all() and fired[half:].all()
    assert set(load_segments(tmp_path / "run")["area"].to_pylist()) == {64 * 64}
    # A label's precision is over the cells that somebody decided on.
    splits = {row["image_id"]: row["split"] for row in load_images(tmp_path / "run").to_pylist()}
    chosen = np.array([splits[name] == "discovery" for name in codes.image_ids])[codes.image]
    cat = (codes.cell // codes.width < half) & (codes.cell % codes.width < half)
    rows = load_candidates(tmp_path / "run", concept="cat").to_pylist()
    assert rows
    for row in rows:
        mine = chosen & (codes.feature == row["feature"])
        assert row["precision"] == pytest.approx(cat[mine].mean(), abs=1e-6)


def test_a_plan_for_given_pictures_counts_no_detector_and_one_call_for_every_t(exact: Path) -> None:
    nothing = ["detector.path=/nowhere", "segmenter.path=/nowhere"]
    done = in_process("plan", "--set", *FEW, *nothing, f"pictures.table={exact}", "images=100", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 16 and found["flops"]["detect"] == found["flops"]["segment"] == 0
    names = ("denoiser_calls", "detector_calls", "segmenter_calls", "boxes")
    assert [found["counts"][name] for name in names] == [16, 0, 0, 0]


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
    assert "repeat the prompt" not in empty.stdout, "pictures with one caption, or none, are pictures of their own"

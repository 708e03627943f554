"""A finished run that was edited, cut short or emptied since is refused by every reader, with what puts it right."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.experiments.accuracy import accuracy
from gazetteer.jobs.experiments.causal.choose import finished_run
from gazetteer.jobs.experiments.examine import examine
from gazetteer.jobs.experiments.layout import evaluate_run
from gazetteer.jobs.experiments.steer_evaluate import evaluate_steering
from gazetteer.jobs.label.job import label
from gazetteer.jobs.label.summary import summarise
from gazetteer.jobs.operate.compact import compact
from gazetteer.jobs.operate.verify import verify
from gazetteer.jobs.publish.run import publish
from gazetteer.labeling.atlas import write_atlas
from gazetteer.labeling.export.coco import export_coco
from gazetteer.labeling.export.csv import export_csv
from gazetteer.labeling.export.labelstudio import export_labelstudio
from gazetteer.labeling.export.voc import export_voc
from gazetteer.labeling.interventions.resolve import Resolver
from gazetteer.labeling.quality.compare import compare_runs
from gazetteer.labeling.quality.rating import write_page
from gazetteer.labeling.quality.report import run_quality
from tests.support.system.running import digests, in_process

READERS: dict[str, Callable[[Path, Path], Any]] = {
    "summary": lambda run, out: summarise(run),
    "quality": lambda run, out: run_quality(run),
    "atlas": lambda run, out: write_atlas(run, out),
    "publish": lambda run, out: publish(run, str(out)),
    "compare": lambda run, out: compare_runs(run, run),
    "export --csv": lambda run, out: export_csv(RunFolder(run), out),
    "export --coco": lambda run, out: export_coco(RunFolder(run), out.with_suffix(".json")),
    "export --voc": lambda run, out: export_voc(RunFolder(run), out),
    "export --labelstudio": lambda run, out: export_labelstudio(RunFolder(run), out.with_suffix(".json")),
    "rate": lambda run, out: write_page(run, out),
    "steer draw": lambda run, out: Resolver(run),
    "steer evaluate": lambda run, out: evaluate_steering(run_config(run), str(run)),
    "layout": lambda run, out: evaluate_run(run_config(run), str(run)),
    "causal": lambda run, out: finished_run(run_config(run), str(run)),
    "examine": lambda run, out: examine(run_config(run), str(run), 0),
    "accuracy": lambda run, out: accuracy(run_config(run), str(run)),
    "load": lambda run, out: open_finished(run),
}


@pytest.fixture
def run(scenes_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_run, tmp_path / "run"))


def edit(path: Path, change: Callable[[Any], Any] | None = None) -> None:
    """Change a JSON file; without a change, cut it short."""
    content = path.read_text()
    if change is None:
        path.write_text(content[: len(content) // 2])
        return
    value = json.loads(content)
    change(value)
    path.write_text(json.dumps(value))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def linked(folder: Path) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a plan edited": (
        lambda run: edit(run / "_meta/plan-1.json", lambda plan: plan["items"].pop()), "_meta/plan-1.json", "remove it"
    ),
    "a plan cut short": (lambda run: edit(run / "_meta/plan-2.json"), "_meta/plan-2.json", "remove it"),
    "a plan emptied": (lambda run: (run / "_meta/plan-2.json").write_bytes(b""), "_meta/plan-2.json", "remove it"),
    "settings edited": (
        lambda run: edit(run / "_meta/run.json", lambda value: value.update(seed=7)),
        "_meta/run.json", "seed: was 0, now 7): it was edited; put it back",
    ),
    "label settings edited": (
        lambda run: edit(run / "_meta/run.json", lambda value: value.update({"labels.max_q": 0.5})),
        "_meta/run.json", "labels.max_q: was",
    ),
    "a plan that is a folder": (
        lambda run: (run / "_meta/retry-1.json").mkdir(), "_meta/retry-1.json", "is not a regular file"
    ),
    "settings in a pipe": (lambda run: piped(run / "_meta/run.json"), "_meta/run.json", "is not a regular file"),
    "pictures behind a link": (lambda run: linked(run / "images"), "images is a link", "put the folder itself there"),
    "a record gone": (
        lambda run: sorted((run / "_meta/commits").iterdir())[0].unlink(), "_meta/commits/", "gazetteer verify"
    ),
    "a table gone": (lambda run: (run / "labels.parquet").unlink(), "labels.parquet is missing", "gazetteer verify"),
    "a table of another run": (
        lambda run: shutil.copy(run / "features.parquet", run / "labels.parquet"),
        "labels.parquet is not the table it finished with", "gazetteer verify",
    ),
    "no mark": (lambda run: (run / "_meta/_SUCCESS").unlink(), "is not a finished run", "only its mark is missing"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_reader_takes_a_run_that_is_not_as_it_was_left(run: Path, tmp_path: Path, damage: str) -> None:
    act, where, what = DAMAGES[damage]
    act(run)
    for name, read in READERS.items():
        with pytest.raises(InputError) as refused:
            read(run, tmp_path / "out")
        said = str(refused.value)
        if name != "publish" or "verify" not in said:  # which compares every byte first
            assert where in said and what in said, name
        assert not list(tmp_path.glob("out*")), name


def test_a_kept_configuration_that_cannot_be_read_is_found_and_removed(run: Path) -> None:
    edit(run / "_meta/config.json")
    report = verify(run)
    assert [problem["where"] for problem in report["problems"]] == ["_meta/config.json"]
    assert report["advice"] == "remove _meta/config.json; nothing else is damaged."
    (run / "_meta/config.json").unlink()
    assert verify(run)["verdict"] == "sound"


def test_settings_that_were_edited_are_put_back_and_cost_nothing(run: Path) -> None:
    whole, before = (run / "_meta/run.json").read_bytes(), digests(run)
    edit(run / "_meta/run.json", lambda value: value.update(seed=7))
    for drop in (False, True):
        report = verify(run, drop=drop)
        (problem,) = report["problems"]
        assert report["verdict"] == "damaged" and (problem["where"], problem["shard"]) == ("_meta/run.json", None)
        assert "(seed: was 0, now 7)" in problem["what"]
        assert report["advice"].startswith("put _meta/run.json back as it was, which computes nothing again")
    with pytest.raises(InputError, match=r"_meta/run.json states other settings .*seed: was 0, now 7"):
        compact(run)
    assert digests(run) == before and RunFolder(run).is_complete(), "--drop dropped nothing"
    (run / "_meta/run.json").write_bytes(whole)
    assert verify(run)["verdict"] == "sound" and summarise(run)["images"] == 16


def test_shards_of_another_run_are_still_called_so(run: Path) -> None:
    """Where the first plan is of the settings, these were not edited."""
    store = RunFolder(run)
    items, size = store.read_plan("plan-1"), store.read_json("run.json")
    assert items is not None
    edit(run / "_meta/run.json", lambda value: value.update(seed=7))
    (run / "_meta/plan-1.json").unlink()
    RunFolder(run).write_plan("plan-1", items)
    report = verify(run)
    assert size["seed"] == 0 and "run.json" not in {problem["where"] for problem in report["problems"]}
    assert [p["what"] for p in report["problems"] if p["shard"]] == ["was written by a run with other settings"] * 4


@pytest.mark.parametrize("together", [False, True], ids=["shards", "groups"])
def test_a_plan_that_is_removed_is_made_again_and_no_picture(run: Path, together: bool) -> None:
    """Of a compacted run, whose first pass is there in groups alone, too."""
    if together:
        compact(run)
    plans = {name: (run / f"_meta/{name}.json").read_bytes() for name in ("plan-1", "plan-2")}
    before, parts = digests(run), {path: path.stat().st_mtime_ns for path in run.glob("*/part-*")}
    for name in plans:
        edit(run / f"_meta/{name}.json")
        assert f"_meta/{name}.json" in {problem["where"] for problem in verify(run)["problems"]}
        with pytest.raises(InputError, match=rf"{name}.json is not the plan .* remove it, then gazetteer label"):
            label(run_config(run), run)
        (run / f"_meta/{name}.json").unlink()
        assert label(run_config(run), run)["nothing_to_do"] is False
        assert (run / f"_meta/{name}.json").read_bytes() == plans[name]
    assert digests(run) == before and verify(run)["verdict"] == "sound"
    assert {path: path.stat().st_mtime_ns for path in run.glob("*/part-*")} == parts
    assert label(run_config(run), run)["nothing_to_do"] is True


def test_a_finished_run_hears_what_only_later_commands_go_by(run: Path) -> None:
    assert label(run_config(run), run)["heard"] == []
    sound, changed = digests(run), run_config(run, ["steer.strengths=[0.3]", "accuracy.images=7"])
    done = label(changed, run)
    assert done["nothing_to_do"] and done["heard"] == ["steer.strengths", "accuracy.images"]
    assert run_config(run) == changed and verify(run)["verdict"] == "sound"
    assert label(changed, run)["heard"] == [] and digests(run) == sound


def test_what_finishes_a_run_follows_from_what_was_cut_off(run: Path, tmp_path: Path) -> None:
    store = RunFolder(run)
    with pytest.raises(InputError, match=r"nowhere is not a finished run: there is no such folder\."):
        open_finished(tmp_path / "nowhere")
    os.remove(run / "_meta/_SUCCESS")
    assert "only its mark is missing" in store.how_to_finish()
    done = in_process("verify", str(run))
    assert done.returncode == 3 and "only its mark is missing: run gazetteer label" in done.stdout
    store.drop_shard(store.shard_ids()[0])
    assert store.how_to_finish() == "run gazetteer label on it"

"""A run is of one fingerprint: its shards, its plans and its folder are held to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.digests import digest_file
from gazetteer.data.core.errors import GazetteerError, InputError, LockedError
from gazetteer.data.inputs.prompts import make_item, planned_items
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.relabelled import record_settings
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.provenance import provenance, read_provenance
from tests.support.runs.runs import commit, failures, finished_run


def started(path: Path, seed: int) -> RunFolder:
    return RunFolder(path).open_or_create({"seed": seed})


def test_a_shard_of_other_settings_is_refused_by_whoever_meets_it(tmp_path: Path) -> None:
    """Copied in with its record, as by `cp -r other/* run/`: nothing about the shard itself is wrong."""
    ours, other = started(tmp_path / "ours", 1), started(tmp_path / "other", 2)
    commit(ours, "a")
    commit(other, "b")
    for path in (tmp_path / "other").rglob("*b.*"):
        shutil.copy(path, tmp_path / "ours" / path.relative_to(tmp_path / "other"))
    for act in (
        lambda: ours.committed(),
        lambda: ours.committed(verify=True),
        lambda: ours.read_table("evidence"),
        lambda: RunFolder(ours.path).read_table("evidence", ["b"], columns=["images"]),
        lambda: commit(ours, "b"),
    ):
        with pytest.raises(InputError, match=r"Shard b of .*other settings.*gazetteer verify .* --drop"):
            act()
    assert [(problem.where, problem.what, problem.shard) for problem in ours.check().problems] == [
        ("_meta/commits/b.json", "was written by a run with other settings", "b")
    ]
    assert (tmp_path / "ours/evidence/part-b.parquet").exists(), "refused, not deleted"
    ours.drop_shard("b")
    assert set(ours.committed(verify=True)) == {"a"}


def test_parts_carry_the_fingerprint_and_another_ones_cannot_be_committed(tmp_path: Path) -> None:
    run = started(tmp_path / "run", 1)
    commit(run, "a")
    assert read_provenance(tmp_path / "run/evidence/part-a.parquet")["fingerprint"] == {"seed": 1}
    with pytest.raises(GazetteerError, match="made with other settings cannot be committed"):
        run.commit_shard("b", {"failures": failures("b")}, {}, provenance({"seed": 2}, {}))
    assert run.shard_ids() == ["a"]


def test_a_run_without_run_json_is_not_started_over(tmp_path: Path) -> None:
    run = started(tmp_path / "run", 1)
    commit(run, "a")
    (tmp_path / "run/_meta/run.json").unlink()
    for seed in (1, 2):
        with pytest.raises(InputError, match=r"holds shards but no _meta/run.json"):
            started(tmp_path / "run", seed)
    with pytest.raises(InputError, match="other settings"):
        RunFolder(tmp_path / "run").read_table("evidence")
    (tmp_path / "run/_meta/run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run.json is corrupt.*another folder"):
        started(tmp_path / "run", 1)


def test_until_a_first_shard_is_committed_the_settings_may_change(tmp_path: Path) -> None:
    run = started(tmp_path / "run", 1)
    run.write_plan("plan-1", {"items": [1]})
    again = started(tmp_path / "run", 2)
    assert again.read_json("run.json") == {"seed": 2}
    assert again.read_plan("plan-1") is None, "a plan of the other settings"
    with pytest.raises(InputError, match="seed: was 2, now 1"), run.lock():
        pass  # the first one comes back: the run is not its own any more
    with again.lock(), pytest.raises(LockedError):
        started(tmp_path / "run", 3)
    commit(again, "a")
    with pytest.raises(InputError, match="seed: was 2, now 3"):
        started(tmp_path / "run", 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("a dog", "a cat"),
        lambda text: text.replace('"items"', '"other"'),
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "sha256"}),
    ],
)
def test_a_plan_that_is_not_the_one_written_is_refused(tmp_path: Path, damage: Any) -> None:
    run = started(tmp_path / "run", 1)
    plan = {"shard_size": 2, "items": [{"prompt": "a dog", "seed": 5}]}
    assert run.write_plan("plan-1", plan) == plan == run.read_plan("plan-1")
    assert run.write_plan("plan-1", {"items": []}) == plan, "the first stays"
    path = tmp_path / "run/_meta/plan-1.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"plan-1.json is not the plan that was written.*remove it"):
        run.read_plan("plan-1")
    with pytest.raises(InputError, match=r"plan-1.json"):
        run.write_plan("plan-1", plan)


def test_a_plan_of_another_run_is_refused(tmp_path: Path) -> None:
    other = started(tmp_path / "other", 2)
    other.write_plan("plan-1", {"items": []})
    run = started(tmp_path / "run", 1)
    shutil.copy(tmp_path / "other/_meta/plan-1.json", tmp_path / "run/_meta/plan-1.json")
    with pytest.raises(InputError, match="a run with other settings"):
        run.read_plan("plan-1")


def test_the_ids_of_a_plan_are_those_of_its_prompts_and_seeds() -> None:
    items = [make_item("a dog", 1, "models"), make_item("a cat", 2, "models")]
    rows = [{"prompt": item.prompt, "seed": item.seed, "image_id": item.image_id} for item in items]
    assert planned_items(rows, "models") == items
    for change in ({"prompt": "a car"}, {"seed": 3}, {"image_id": "0" * 16}):
        with pytest.raises(InputError, match="plan was edited"):
            planned_items([rows[0], rows[1] | change], "models")
    with pytest.raises(InputError, match="plan was edited"):
        planned_items(rows, "other models")
    for damaged in (None, [1], [{}], [{"prompt": "a dog", "seed": "1", "image_id": "x"}], "rows"):
        with pytest.raises(InputError, match="damaged"):
            planned_items(damaged, "models")


@pytest.mark.parametrize("value", [{"a": 1, "b": [1, 2.5, None, "é"]}, {}])
def test_a_seal_tells_what_was_written_from_anything_else(value: dict[str, Any]) -> None:
    content = seal(value)
    assert unseal(content) == value
    for number in range(len(content)):
        changed = bytearray(content)
        changed[number] ^= 1
        assert unseal(bytes(changed)) in (None, value)  # a space may become no space, and nothing else may
    assert unseal(b"[" * 100_000) is None


@pytest.mark.parametrize("entry", ["labels.parquet", "images/part-cat.parquet", "notes.txt", "run/_meta/run.json"])
def test_a_folder_of_somebodys_files_is_not_made_a_run(tmp_path: Path, entry: str) -> None:
    mine = tmp_path / "folder" / entry
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"neither empty nor a run: it holds {Path(entry).parts[0]}"):
        started(tmp_path / "folder", 1)
    assert (sorted(tmp_path.rglob("*")), mine.read_text()) == (before, "mine")


def test_no_folder_is_made_on_the_way_back_to_somebodys_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """x/../mine is mine only once x is there: before, a look at it finds nothing, and a write makes x first."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/labels.parquet").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for way in ("x/../mine", "mine/labels.parquet/../../mine", str(tmp_path / "x/y/../../mine")):
        with pytest.raises(InputError, match=r"leads through .*, which is no folder"):
            started(Path(way), 1)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["mine", "labels.parquet"]
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="neither empty nor a run"):
        started(Path("x/../mine"), 1)
    assert started(Path("x/../new"), 1).exists()


def test_a_prefix_of_somebodys_objects_is_not_made_a_run() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/somebody/images/part-cat.parquet", b"mine")
    with pytest.raises(InputError, match="neither empty nor a run: it holds images"):
        RunFolder("memory://somebody").open_or_create({})


def test_an_empty_or_hidden_or_logged_folder_may_become_a_run(tmp_path: Path) -> None:
    for name in (".DS_Store", "_meta/log.jsonl"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text("")
    assert started(tmp_path / "folder", 1).exists()


def test_hand_edited_records_and_manifests_are_noticed(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    record = tmp_path / "run/_meta/commits/s0.json"
    text = record.read_text()
    for old, new in (('"rows": 1', '"rows": 2'), ('"info": {}', '"info": {"images": 7}'), ("images", "../../x")):
        record.write_text(text.replace(old, new, 1))
        assert next((p.where, p.shard) for p in run.check().problems) == ("_meta/commits/s0.json", "s0")
    value = unseal(text.encode())
    assert value is not None
    for wrong in ({"rows": "1"}, {"rows": True}, {"bytes": -1}, {"sha256": 5}):
        value["tables"]["images"] = value["tables"]["images"] | wrong
        record.write_bytes(seal(value))
        assert next(p.what for p in run.check().problems).startswith("is not a commit record")
    record.write_text(text)
    for manifest in ([], {"shards": 5}, {"shards": [5]}, {"shards": ["../x"]}, {"tables": {"../../x": {}}},
                     {"tables": {"labels": {"rows": 1}}}, {"tables": []}):  # fmt: skip
        run.write_json("manifest.json", manifest)
        mark = tmp_path / "run/_meta/_SUCCESS"
        mark.write_text(digest_file(tmp_path / "run/_meta/manifest.json"))
        assert run.is_complete()
        assert run.manifest() is None
        assert ("_meta/manifest.json", "is not a manifest") in [(p.where, p.what) for p in run.check().problems]


@pytest.mark.parametrize("text", ['{"labels.max_q": NaN}', '{"labels.max_q": 1e999}', "[]", "{"])
def test_what_no_run_could_have_been_started_with_is_called_corrupt(tmp_path: Path, text: str) -> None:
    store = RunFolder(tmp_path / "run").open_or_create({})
    (tmp_path / "run" / "_meta" / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json is corrupt, and nothing else can be judged"):
        store.check()


def test_a_run_that_starts_over_forgets_label_settings_and_groups(tmp_path: Path) -> None:
    """Both belong to shards and tables that are gone; kept, the settings would overlay the new ones for ever."""
    store = RunFolder(tmp_path / "run").open_or_create({"labels.max_q": 0.05})
    record_settings(open_files(tmp_path / "run"), {"labels.max_q": 0.05}, {"labels.max_q": 0.2}, None, {})
    store.write_plan("groups", {"groups": {}})
    assert RunFolder(tmp_path / "run").open_or_create({"labels.max_q": 0.1}).of_tables() == {"labels.max_q": 0.1}
    assert store.read_plan("groups") is None

"""A finished run whose tables are made again under other label settings, with nothing sampled or detected."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gazetteer.data.core.digests import digest_file
from gazetteer.data.core.errors import InputError, LockedError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.relabelled import read_record
from gazetteer.data.storage.local import LocalFiles
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import CAUSAL, EXAMINERS
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.executors.ray import executor
from gazetteer.jobs.executors.serial import run_serial
from gazetteer.jobs.executors.task import Task
from gazetteer.jobs.experiments import examine as examining
from gazetteer.jobs.experiments.causal import measure
from gazetteer.jobs.label import reduce
from gazetteer.jobs.label import run as label_run
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.label.job import label
from gazetteer.jobs.label.relabel import relabel
from gazetteer.jobs.operate.compact import compact
from gazetteer.jobs.operate.verify import SOUND, UNFINISHED, verify
from tests.support.system.killer import killed_everywhere
from tests.support.system.running import ONE_SITE, SMALL, digests, in_process

OTHER = ["labels.min_images=3", "labels.min_precision=0.6"]
FINALS = ("labels.parquet", "candidates.parquet", "features.parquet")


def tables(run: Path) -> dict[str, str]:
    """Digests of the final tables at the top."""
    return {name: digest for name, digest in digests(run).items() if name in FINALS}


@pytest.fixture
def run(scenes_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_run, tmp_path / "run"))


def test_other_tables_under_other_settings_and_the_first_ones_again_under_the_first(run: Path) -> None:
    before, parts = tables(run), {n: d for n, d in digests(run).items() if "/" in n}
    done = in_process("relabel", str(run), "--set", *OTHER, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changed"] == {"labels.min_images": [2, 3], "labels.min_precision": [0.15, 0.6]}
    assert found["labels"] < found["before"]["labels"] and not found["nothing_to_do"]
    other = tables(run)
    assert all(other[name] != before[name] for name in FINALS)
    made = read_provenance(run / "labels.parquet")
    assert made["fingerprint"]["labels.min_images"] == made["config"]["labels.min_images"] == 3
    assert {name: digests(run)[f"{found['kept']}/{name}"] for name in FINALS} == before, "the old ones are kept"
    assert {n: digests(run)[n] for n in parts} == parts and verify(run)["verdict"] == SOUND
    assert relabel(run)["nothing_to_do"] and relabel(run, OTHER)["nothing_to_do"]
    # Who resumes it with what it was started with is told, and loses nothing.
    settings = ["executor=serial", *SMALL]
    refused = in_process("label", str(run), "--set", *settings)
    assert refused.returncode == 2 and "labels.min_images: was 3, now 2" in refused.stderr
    assert "gazetteer relabel" in refused.stderr and tables(run) == other
    resumed = in_process("label", str(run), "--set", *settings, *OTHER)
    assert resumed.returncode == 0 and "nothing to do" in resumed.stdout
    # From shards that were put together since, the same tables come as came from each of them.
    assert compact(run)["groups"] >= 1 and tables(run) == other
    misspelt = in_process("relabel", str(run), "--set", "labels.stuff=[skies, watr]")
    assert misspelt.returncode == 0 and "labels.stuff names 'watr', which no picture was asked for" in misspelt.stderr
    assert "skies" not in misspelt.stderr, "a plural is a way to write it"
    stuff = json.loads((run / "_meta/run.json").read_text())["labels.stuff"]
    back = relabel(run, ["labels.min_images=2", "labels.min_precision=0.15", f"labels.stuff={json.dumps(stuff)}"])
    assert tables(run) == before and (back["before"]["labels"], back["labels"]) == (
        found["labels"], found["before"]["labels"],
    )  # fmt: skip
    assert len(list((run / "codes").iterdir())) < len([name for name in parts if name.startswith("codes/")])
    assert verify(run)["verdict"] == SOUND
    record = read_record(open_files(run))
    assert record is not None and [row["labels"]["labels.min_images"] for row in record["before"]] == [2, 3, 3]


def test_a_shard_that_is_lost_afterwards_is_made_as_the_run_was_started_and_labelled_as_now(run: Path) -> None:
    relabel(run, OTHER)
    other = tables(run)
    lost = next((run / "codes").glob("*.parquet"))
    lost.write_bytes(b"torn")
    assert in_process("relabel", str(run), "--set", "labels.min_images=4").returncode == 2, "what is damaged is said"
    assert tables(run) == other
    assert in_process("verify", str(run), "--drop").returncode == 1
    done = in_process("relabel", str(run), "--set", "labels.min_images=4")
    assert done.returncode == 2 and "is not a finished run; run gazetteer label" in done.stderr
    done = in_process("label", str(run), "--set", "executor=serial", *SMALL, *OTHER)
    assert done.returncode == 0, done.stderr
    assert tables(run) == other and verify(run)["verdict"] == SOUND


def test_killed_before_every_change_it_goes_on_by_the_same_call(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reduce.reduce_run
    made: dict[str, Any] = {}

    def once(store: RunFolder, share_out: Any, pictures: int, counts: Any, model: str, config: Any, wanted: int) -> Any:
        """The real tables, made once a setting: what is killed here is their publication."""
        key = str(config)
        if key not in made:
            made[key] = real(store, share_out, pictures, counts, model, config, wanted)
        return made[key]

    monkeypatch.setattr(reduce, "reduce_run", once)
    before = tables(run)
    write_examined(run)
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    assert relabel(whole, OTHER)["beside"] == {"examiners": "examine"}
    after = tables(whole)

    def work(at: int) -> None:
        relabel(shutil.copytree(run, tmp_path / str(at)), OTHER)

    last = killed_everywhere([(os, "replace"), (LocalFiles, "remove")], work)
    assert last > 10
    for at in range(last):
        torn = tmp_path / str(at)
        whole_set = tables(torn) in (before, after)
        assert whole_set or not RunFolder(torn).is_complete(), "never a finished run of two sets of tables"
        assert RunFolder(torn).is_complete() or "gazetteer relabel" in RunFolder(torn).how_to_finish()
        assert verify(torn)["verdict"] in (SOUND, UNFINISHED)
        changed_mind = Path(shutil.copytree(torn, tmp_path / f"{at}-another"))
        relabel(changed_mind, ["labels.min_images=4"])
        require_kept_as_made(changed_mind)
        relabel(torn, OTHER)
        assert tables(torn) == after and digests(torn).keys() == digests(whole).keys()
    assert verify(torn)["verdict"] == SOUND and not (torn / "examiners.parquet").exists()


def require_kept_as_made(run: Path) -> None:
    """What is kept of each set of tables is what was recorded when it was finished."""
    rows = (read_record(open_files(run)) or {"before": []})["before"]
    assert rows
    for row in rows:
        kept = {name: digest_file(run / row["kept"] / f"{name}.parquet") for name in row["tables"]}
        assert kept == {name: table["sha256"] for name, table in row["tables"].items()}


MADE = (
    ["model.device=cuda"], ["ray_address=job"], ["ray_address=10.0.0.1:6379"],
    ["vocabulary.tagger=mine:tags", "vocabulary.ask=both"],
)  # fmt: skip


@pytest.mark.parametrize("made", MADE)
def test_a_run_made_on_gpus_or_a_cluster_is_labelled_again_by_this_machine(
    run: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    """Ray, which is not started here, is asked for a session of this machine's own, and for no GPU."""
    store, asked, shared = RunFolder(run), [], "ray"

    @contextmanager
    def session(pools: Any, threads: int, address: str, limits: Any, words: Any, later: bool) -> Iterator[str]:
        asked.append((address, later, limits.attempts))
        yield "pools"

    def work(task: Task, jobs: Any, done: Any, pools: Any) -> None:
        assert task.pool is not None and not task.pool.demand.get("GPU")
        run_serial(task, jobs, done)

    raw = json.loads(json.dumps(dataclasses.asdict(run_config(run, [f"executor={shared}", *made]))))
    store.write_json("config.json", raw)
    monkeypatch.setattr(reduce, "PARALLEL_FROM", 0)
    monkeypatch.setattr(executor, "ray_pools", session)
    monkeypatch.setattr(executor, "run_ray", work)
    assert in_process("relabel", str(run), "--set", "labels.min_images=3").returncode == 0
    here = ["ray_address=there:1", "limits.attempts=7", "labels.min_images=4"]
    assert in_process("relabel", str(run), "--set", *here).returncode == 0, "a cluster may be named"
    assert asked == [("", True, 2), ("there:1", True, 7)]
    assert in_process("relabel", str(run), "--set", "executor=serial", "labels.min_images=5").returncode == 0
    assert len(asked) == 2
    kept = store.read_json("config.json")
    assert {**kept, "labels": raw["labels"]} == raw, "the run keeps how it was made"
    (run / "labels.parquet").unlink()
    assert in_process("label", str(run), "--set", *SMALL, f"executor={shared}", "labels.min_images=5").returncode == 0
    assert asked[2:] == [("", True, 2)], "nor does label ask for what its models need where tables alone are missing"


def write_examined(run: Path) -> None:
    """An examiners table of this run's labels, without a row."""
    from gazetteer.data.tables.provenance import provenance
    from gazetteer.data.tables.schemas import EXAMINERS

    store = RunFolder(run)
    store.write_final("examiners", EXAMINERS.empty_table(), provenance(store.of_tables(), {}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["seed=1"], "seed would need other pictures"),
        (["labels.min_image=3"], "did you mean min_images?"),
        (["labels.max_q=nan"], "labels.max_q"),
        (["labels.styles=[left half]"], "is a place"),
    ],
)
def test_what_it_cannot_change_is_refused(run: Path, settings: list[str], said: str) -> None:
    before = digests(run)
    done = in_process("relabel", str(run), "--set", *settings)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert digests(run) == before


def test_what_is_no_finished_run_or_keeps_a_damaged_record_is_refused(run: Path, tmp_path: Path) -> None:
    done = in_process("relabel", str(tmp_path / "nothing"))
    assert done.returncode == 2 and "is not a run folder" in done.stderr
    (run / "_meta" / "relabelled.json").write_text('{"labels": {}}')
    for verb in ("relabel", "verify"):
        done = in_process(verb, str(run))
        assert done.returncode == 2 and "relabelled.json is corrupt; remove it" in done.stderr, done.stderr
    (run / "_meta" / "relabelled.json").unlink()
    started = (run / "_meta" / "run.json").read_text()
    (run / "_meta" / "run.json").write_text(json.dumps({**json.loads(started), "generation.steps": 7}))
    done = in_process("relabel", str(run))
    assert done.returncode == 2 and "run.json states: that file was edited" in done.stderr, done.stderr
    (run / "_meta" / "run.json").write_text(started)
    store = RunFolder(run)
    store.clear_success()
    plan.write_pass(store, "retry-1", (plan.read_pass(store, plan.FIRST) or [])[0].items[:1], 0)  # begun, and killed
    done = in_process("relabel", str(run))
    assert done.returncode == 2 and "is not a finished run; run gazetteer label" in done.stderr
    (run / "_meta" / "retry-1.json").unlink()
    next((run / "_meta" / "commits").glob("*.json")).unlink()
    done = in_process("relabel", str(run))
    assert done.returncode == 2 and "is not a finished run; run gazetteer label" in done.stderr


def few_pictures() -> RunConfig:
    few = ["executor=serial", "generation.steps=2", "images=2", "coverage.first=1.0", "labels.min_images=1"]
    return load_config(None, [*SMALL, *ONE_SITE, *few])


def test_a_retry_that_changes_labels_puts_aside_what_was_made_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunFolder(tmp_path / "run")
    label(few_pictures(), store.path)
    about = {"fingerprint": store.of_tables()}
    store.write_final("causal", CAUSAL.empty_table(), about)
    store.write_final("examiners", EXAMINERS.empty_table(), about)
    causal = (tmp_path / "run" / "causal.parquet").read_bytes()

    store.drop_shard(store.shard_ids()[0])
    label(few_pictures(), store.path)
    assert store.has_final("causal") and store.has_final("examiners"), "the same tables were made again"

    made = label_run.reduce_run

    def fewer(*arguments: Any) -> dict[str, pa.Table]:
        tables = made(*arguments)
        return {**tables, "features": tables["features"].slice(1)}

    monkeypatch.setattr(label_run, "reduce_run", fewer)
    store.clear_success()
    (tmp_path / "run" / "labels.parquet").unlink()  # as where a shard was computed again
    capsys.readouterr()
    label(few_pictures(), store.path)
    said = capsys.readouterr().err
    assert not store.has_final("causal") and not store.has_final("examiners")
    (kept,) = (tmp_path / "run" / "_meta" / "relabelled").rglob("causal.parquet")
    assert kept.read_bytes() == causal and str(kept) in said
    assert f"gazetteer causal {store.path} makes it anew" in said
    assert f"gazetteer examine {store.path} makes it anew" in said
    assert verify(store.path)["verdict"] == "sound"


QUICK = ["accuracy.truth=''", "attribute.classifier=''", "steer.classifier=''", "steer.words=[]", "executor=serial"]


def test_examined_labels_that_are_made_again_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, own = run_config(run, QUICK), examining._truth

    def relabelled(*given: Any) -> Any:
        relabel(run, OTHER)
        return own(*given)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(examining, "_truth", relabelled)
        with pytest.raises(InputError, match=r"made again while gazetteer examine worked .* examiners.parquet is not"):
            examining.examine(config, str(run), 0)
    store = RunFolder(run)
    assert not store.has_final("examiners") and verify(run)["verdict"] == SOUND
    config = run_config(run, QUICK)
    with store.lock(), pytest.raises(LockedError):
        examining.examine(config, str(run), 0)
    done = in_process("examine", str(run), "--fresh", "0", "--set", *QUICK)
    assert done.returncode == 0, done.stderr
    assert read_provenance(run / "examiners.parquet")["fingerprint"] == store.of_tables()


def test_tried_labels_that_are_made_again_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(*_: Any) -> int:
        relabel(run, OTHER)
        return 0

    monkeypatch.setattr(measure.CausalPass, "rounds", rounds)
    monkeypatch.setattr(measure.CausalPass, "table", lambda *_: CAUSAL.empty_table())
    config = run_config(run, [*QUICK, "causal.images=1"])
    with pytest.raises(InputError, match=r"made again while gazetteer causal worked .* causal.parquet is not written"):
        measure.measure_causes(config, str(run), 1)
    assert not RunFolder(run).has_final("causal")

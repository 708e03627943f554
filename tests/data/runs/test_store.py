"""The run folder: every shard whole or absent, exactly once, the first commit kept."""

import logging
import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gazetteer.data.core.errors import GazetteerError, InputError, LockedError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import PART_TABLES
from tests.support.runs.runs import PROVENANCE, commit, evidence, failures, finished_run


def damage(run, path, how):
    content = bytearray(run._files.read(path))
    if how == "gone":
        return run._files.remove(path)
    if how == "short":
        content = content[:-3]
    else:
        content[len(content) // 2] ^= 1
    run._files.replace(path, bytes(content))


@pytest.fixture(params=["folder", "file://", "memory://"])
def run(request, tmp_path):
    where = {"folder": str(tmp_path / "run"), "file://": f"file://{tmp_path}/run"}
    return RunFolder(where.get(request.param, f"memory://{uuid.uuid4().hex}/run"))


def test_a_shard_is_published_recorded_and_read_back(run):
    done = [commit(run, shard, count) for shard, count in (("b", 2), ("a", 1))]
    assert run.committed(verify=True) == {"a": done[1], "b": done[0]}
    assert done[1].info == {"seen": 1}
    assert run.read_table("failures")["item"].to_pylist() == ["a", "b"]
    assert run.read_table("failures", shards=["b"], columns=["attempts", "item"]).to_pylist() == [
        {"attempts": 2, "item": "b"}
    ]
    assert run.read_table("evidence", filter=pc.field("images") > 1)["hits"].to_pylist() == [2]
    assert run.read_table("evidence", filter=[("images", ">", 5)]).num_rows == 0
    assert run.read_table("images").schema == PART_TABLES["images"]


def test_the_first_commit_wins(run, caplog):
    caplog.set_level(logging.INFO)
    first = commit(run, "a", 1)
    assert commit(run, "a", 1) == first
    assert not caplog.records
    assert commit(run, "a", 2) == first
    assert "the first is kept" in caplog.text
    assert run.read_table("evidence")["images"].to_pylist() == [1]


@pytest.mark.parametrize("how", ["gone", "short", "flipped"])
def test_a_damaged_part_is_refused_by_readers_and_computed_again(run, caplog, how):
    for shard in ("a", "b"):
        commit(run, shard)
    damage(run, "evidence/part-a.parquet", how)
    with pytest.raises(InputError, match=r"evidence/part-a.parquet .* run gazetteer verify .* --drop, then"):
        run.read_table("evidence")
    assert set(run.committed(verify=True)) == {"b"}
    assert "part-a.parquet" in caplog.text
    assert run._files.names("failures") == ["part-b.parquet"]
    commit(run, "a", 7)
    assert run.read_table("evidence")["images"].to_pylist() == [7, 1]


def test_recommitting_a_damaged_shard_repairs_it_without_a_listing(run):
    commit(run, "a", 1)
    damage(run, "evidence/part-a.parquet", "flipped")
    assert commit(run, "a", 2).info == {"seen": 2}
    assert set(run.committed(verify=True)) == {"a"}


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"shard": "b"}', b'{"shard":"b","tables":{},"info":{}}'])
def test_a_corrupt_commit_record_costs_its_shard_only(run, record):
    commit(run, "a")
    commit(run, "c")
    run._files.replace("_meta/commits/a.json", record)
    assert set(run.committed()) == {"c"}
    assert run._files.names("evidence") == ["part-c.parquet"]


def test_orphans_are_replaced_and_leftovers_of_other_tables_removed(run):
    commit(run, "a", 1)
    run._files.remove("_meta/commits/a.json")  # as if the writer had been killed before the record
    run.commit_shard("a", {"evidence": evidence(5)}, {}, PROVENANCE)
    assert run.read_table("evidence")["images"].to_pylist() == [5]
    assert run._files.names("failures") == []


def test_finishing_removes_orphans_of_ours_and_marks_success(run):
    ours = "0123456789abcdef"
    commit(run, "a")
    for name in (ours, "cat"):  # a part may be anybody's whose name is no digest
        commit(run, name)
        run._files.remove(f"_meta/commits/{name}.json")
    assert not run.is_complete()
    run.finish({"shards": ["a"]})
    assert run.is_complete()
    assert run._files.names("evidence") == ["part-a.parquet", "part-cat.parquet"]
    run.write_json("manifest.json", {"shards": ["a", "x"]})
    assert not run.is_complete()
    run.finish({"shards": ["a"]})
    run.clear_success()
    run.clear_success()
    assert not run.is_complete()


def test_a_dropped_shard_is_gone(run):
    commit(run, "a")
    run.drop_shard("a")
    assert run.committed() == {}
    assert run._files.names("evidence") == []


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (failures("a").drop_columns(["item"]), "missing .'item'"),
        (failures("a").append_column("more", pa.array([1])), "unexpected .'more'"),
        (failures("a").set_column(4, "attempts", pa.array(["many"])), "attempts"),
        (failures("a").set_column(4, "attempts", pa.array([None], pa.int64())), "nulls"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, table, says):
    run = RunFolder(tmp_path)
    with pytest.raises(GazetteerError, match=f"failures does not fit its schema.*{says}"):
        run.commit_shard("a", {"failures": table}, {}, PROVENANCE)
    assert run.committed() == {}


def test_columns_are_put_in_order_and_cast(tmp_path):
    table = failures("a").select(["attempts", "item", "message", "error", "stage"])
    table = table.set_column(0, "attempts", table["attempts"].cast(pa.int8()))
    RunFolder(tmp_path).commit_shard("a", {"failures": table}, {}, PROVENANCE)
    assert RunFolder(tmp_path).read_table("failures") == failures("a")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "x" * 200])
def test_unusable_shard_names_are_refused(tmp_path, name):
    with pytest.raises(GazetteerError, match="not a usable name"):
        commit(RunFolder(tmp_path), name)


def test_reading_what_is_not_there_gets_a_sentence(run):
    commit(run, "a")
    for ask, says in [
        (lambda: run.read_table("nothing"), "'nothing'"),
        (lambda: run.read_table("failures", columns=["colour"]), "no column 'colour'"),
        (lambda: run.read_table("failures", filter=pc.field("colour") == 1), "filter"),
        (lambda: run.read_table("failures", shards=["z"]), "not committed"),
        (lambda: run.read_final("labels"), "not a finished run: labels.parquet is missing"),
    ]:
        with pytest.raises(InputError, match=says):
            ask()


def test_final_tables_are_replaced_whole_and_byte_equal(run, tmp_path):
    table = pa.table({"x": [1, 2]})
    first = run.write_final("layout", table, PROVENANCE)
    assert first == RunFolder(tmp_path / "other").write_final("layout", table, PROVENANCE)
    assert run._files.read("layout.parquet") == (tmp_path / "other/layout.parquet").read_bytes()
    run.write_final("layout", pa.table({"x": [3]}), PROVENANCE)
    assert run.read_final("layout")["x"].to_pylist() == [3]
    with pytest.raises(GazetteerError, match="labels does not fit"):
        run.write_final("labels", table, PROVENANCE)


def test_parts_carry_provenance_and_zstd(tmp_path):
    commit(RunFolder(tmp_path), "a")
    path = tmp_path / "evidence/part-a.parquet"
    assert read_provenance(path) == PROVENANCE
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_changed_config_is_a_different_run(run):
    run.open_or_create({"config": "abc", "sae": "1", "gone": None})
    run.open_or_create({"sae": "1", "gone": None, "config": "abc"})
    commit(run, "a")
    with pytest.raises(InputError) as caught:
        run.open_or_create({"config": "abd", "sae": "1", "new": 3})
    says = str(caught.value)
    assert "config: was 'abc', now 'abd'" in says
    assert "gone: was None, now absent" in says
    assert "new: was absent, now 3" in says
    assert "sae" not in says
    assert "A changed config is a different run" in says


def test_json_files(run):
    assert run.read_json("plan.json") is None
    run.write_json("plan.json", {"a": (1, 2)})
    assert run.read_json("plan.json") == {"a": [1, 2]}
    run.write_json("plan.json", {"a": "é"})
    assert run.read_json("plan.json") == {"a": "é"}
    for content in (b"{", b"\xff", b"[]", b"3", b'"x"', b"null", b"[" * 100_000):
        run._files.replace("_meta/plan.json", content)
        with pytest.raises(InputError, match=r"_meta/plan.json is corrupt"):
            run.read_json("plan.json")


def test_only_one_holds_the_run(run):
    with run.lock(), pytest.raises(LockedError, match="try again later") as caught, RunFolder(run.path).lock():
        pass
    assert caught.value.exit_code == 75
    with run.lock():
        pass


def test_a_path_that_cannot_be_a_run_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, says in [
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "run", "Cannot write"),
        ("", "has no name"),
        (" ", "has no name"),
        ("/", "cannot be a run"),
        ("/tmp/..", "cannot be a run"),
        ("file:///", "cannot be a run"),
        ("~/runs/one", "was not expanded by the shell"),
        ("a\0b", "NUL"),
        ("\ud800", "not valid Unicode"),
        ("x" * 256, "at most 255 bytes"),
        ("é" * 128, "at most 255 bytes"),
    ]:
        with pytest.raises(GazetteerError, match=says) as caught:
            RunFolder(path).open_or_create({})
        assert says == "Cannot write" or caught.value.exit_code == 2
    with pytest.raises(InputError, match="accepted"):
        RunFolder("nonsense://bucket/run")


def test_nothing_but_parquet_lies_beside_the_parts(tmp_path):
    run = RunFolder(tmp_path).open_or_create({})
    commit(run, "a")
    run.finish({})
    beside = [path.name for path in tmp_path.rglob("*") if path.is_file() and "_meta" not in path.parts]
    assert set(beside) == {"part-a.parquet"}
    assert run._files.names("_meta/staging") == []


@pytest.mark.parametrize(
    ("verb", "start"),
    [("replace", "_meta/staging"), ("create", "_meta/commits"), ("copy", "_meta/staging"), ("remove", "_meta/staging")],
)
def test_without_locks_the_first_record_stays_whoever_interferes(monkeypatch, verb, start):
    """Behind a URL: another writer commits other content in the middle of ours, and is told what counts."""
    run = RunFolder(f"memory://{uuid.uuid4().hex}")
    real, others = getattr(run._files, verb), []

    def interrupted(name, *rest):
        if name.startswith(start) and not others:
            others.append(None)
            others[0] = commit(RunFolder(run.path), "a", 2)
        return real(name, *rest)

    monkeypatch.setattr(run._files, verb, interrupted)
    kept = commit(run, "a", 1)
    assert kept.info["seen"] == (2 if verb in ("replace", "create") else 1)
    assert others == [kept]
    assert run.committed(verify=True) == {"a": kept}
    assert run.read_table("evidence")["images"].to_pylist() == [kept.info["seen"]]
    assert run.read_table("failures")["attempts"].to_pylist() == [kept.info["seen"]]


@pytest.mark.parametrize("verb", ["cat_file", "info", "ls", "pipe_file", "rm_file", "open"])
def test_what_a_store_behind_a_url_raises_becomes_a_sentence(monkeypatch, verb):
    run = finished_run(f"memory://{uuid.uuid4().hex}")

    def refused(*_, **__):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(type(run._files._fs), verb, refused)

    def everything():
        run.read_table("images")
        run.read_table("images", columns=["seed"])
        run.drop_shard("s0")
        run.write_json("plan.json", 1)

    with pytest.raises(GazetteerError, match=f"{run.path}.*no credentials"):
        everything()


class Store(RuleBasedStateMachine):
    """Any history of commits, damage and drops leaves what a dictionary would hold."""

    def __init__(self):
        super().__init__()
        self.run, self.model = RunFolder(f"memory://{uuid.uuid4().hex}"), {}

    @rule(shard=st.sampled_from("abc"), count=st.integers(1, 3))
    def commits(self, shard, count):
        kept = self.model.setdefault(shard, count)
        assert commit(self.run, shard, count).info == {"seen": kept}

    @rule(shard=st.sampled_from("abc"), how=st.sampled_from(["gone", "short", "flipped"]), count=st.integers(1, 3))
    def is_damaged_and_resumed(self, shard, how, count):
        if shard in self.model:
            damage(self.run, f"evidence/part-{shard}.parquet", how)
            del self.model[shard]
            assert set(self.run.committed(verify=True)) == set(self.model)

    @rule(shard=st.sampled_from("abc"))
    def is_dropped(self, shard):
        self.run.drop_shard(shard)
        self.model.pop(shard, None)

    @rule(shard=st.sampled_from("abc"))
    def loses_its_record(self, shard):
        self.run._files.remove(f"_meta/commits/{shard}.json")
        self.model.pop(shard, None)

    @invariant()
    def holds_the_model(self):
        assert {s: c.info["seen"] for s, c in self.run.committed(verify=True).items()} == self.model
        assert self.run.read_table("evidence")["images"].to_pylist() == [n for _, n in sorted(self.model.items())]


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=15, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)

"""The run folder on a real S3-compatible server: create-only writes, races, kills, and a network that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import GazetteerError, InputError, LockedError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from tests.support.runs.runs import commit, finished_run
from tests.support.servers.object_store import Network, environment, network, use
from tests.support.system.running import ROOT, gazetteer, in_process

SHARDS = [f"s{number}" for number in range(6)]


@pytest.fixture
def between(server: str) -> Iterator[Network]:
    """The network is reached through the environment, as a user's endpoint is."""
    with network(server) as between:
        use(between.address)
        yield between
        use(server)


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    return f"s3://bucket/{abs(hash(request.node.nodeid))}/run"


def content(url: str) -> dict[str, bytes]:
    import fsspec

    fs, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {path.removeprefix(base): fs.cat_file(path) for path in fs.find(base) if not path.endswith("/lock")}


def script(text: str, address: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments], cwd=ROOT, env={**os.environ, **environment(address)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_name_is_taken_once(url: str) -> None:
    files = RunFolder(url)._files
    assert files.create("x", b"first")
    assert not files.create("x", b"second")
    assert files.read("x") == b"first"
    files.replace("x", b"third")
    assert (files.read("x"), files.size("x"), files.names("")) == (b"third", 5, ["x"])
    files.remove("x")
    assert files.size("x") is None


def test_a_run_is_finished_checked_and_damage_is_found(url: str) -> None:
    run = finished_run(url)
    found = run.check()
    assert (found.problems, found.complete, found.rows["images"]) == ([], True, 2)
    assert run.read_table("images", columns=["image_id"])["image_id"].to_pylist() == ["i0", "i1"]
    run._files.replace("images/part-s0.parquet", run._files.read("images/part-s0.parquet")[:-9])
    assert [(p.where, p.shard) for p in run.check().problems] == [("images/part-s0.parquet", "s0")]
    assert set(run.committed()) == {"s1"}, "dropped, to be computed again"


RACE = """
import json, sys
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import commit
run = RunFolder(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([commit(run, f"s{n}", int(sys.argv[2])).info["seen"] for n in range(6)]))
"""


def test_two_drivers_on_one_run_agree_on_the_first(server: str, url: str) -> None:
    both = [script(RACE, server, url, str(count)) for count in (1, 2)]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in both)
    assert first == second
    run = RunFolder(url)
    assert run.read_table("evidence")["images"].to_pylist() == first
    assert run.read_table("failures")["attempts"].to_pylist() == first
    assert set(run.committed(verify=True)) == set(SHARDS)


KILLED = """
import os, signal, sys
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import commit
run, (verb, start) = RunFolder(sys.argv[1]), sys.argv[2:]
real = getattr(run._files, verb)
def killed(name, to):
    if name.startswith(start):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(name, to)
setattr(run._files, verb, killed)
commit(run, "s0", 1)
"""


def killed(server: str, url: str, verb: str, start: str) -> None:
    process = script(KILLED, server, url, verb, start)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL


def test_a_kill_before_the_record_leaves_nothing_that_counts(server: str, url: str) -> None:
    killed(server, url, "create", "_meta/commits")
    assert [name.split("/")[1:3] for name in content(url)] == [["_meta", "staging"]] * 2
    run = RunFolder(url)
    assert run.committed() == {}
    commit(run, "s0", 2)
    assert run.read_table("evidence")["images"].to_pylist() == [2]
    assert run.read_table("failures")["attempts"].to_pylist() == [2]
    run.finish({"shards": ["s0"]})
    assert not [name for name in content(url) if "staging" in name]


def test_a_kill_after_the_record_loses_nothing(server: str, url: str) -> None:
    killed(server, url, "copy", "_meta/staging/s0.failures")
    run = RunFolder(url)
    assert "/failures/part-s0.parquet" not in content(url)
    assert set(run.committed()) == {"s0"}, "whoever comes next completes it"
    assert commit(run, "s0", 2).info == {"seen": 1}
    assert run.read_table("failures")["attempts"].to_pylist() == [1]


@pytest.mark.parametrize("fault", ["refuse", "lose"])
def test_over_a_bad_network_the_same_run_comes_out(between: Network, url: str, fault: str) -> None:
    """Answers lost after the write are the hard case: asked again, the name is taken, by ourselves."""
    between.fault, between.fraction = fault, 0.1
    run, said = None, []
    for attempt in range(7):  # a command that ends with a sentence is given again, as a scheduler does
        between.fault = fault if attempt < 5 else ""  # at last the network is mended
        try:
            run = RunFolder(url).open_or_create({"config": "abc"})
            with run.lock():
                for shard in SHARDS:
                    commit(run, shard)
                run.finish({"shards": SHARDS})
            break
        except LockedError:  # the lock is a lease here; its owner's last words were lost
            between.fault = ""
            RunFolder(url)._files.remove("_meta/lock")
        except GazetteerError as error:
            said.append(str(error))
    between.fault = ""
    assert [line for line in said if "run the same command again: what was begun goes on" not in line] == []
    assert sum(between.spoiled.values()) >= 5
    assert run is not None and run.is_complete() and run.check().problems == []
    undisturbed = RunFolder(f"{url}-undisturbed").open_or_create({"config": "abc"})
    for shard in SHARDS:
        commit(undisturbed, shard)
    undisturbed.finish({"shards": SHARDS})
    assert content(url) == content(f"{url}-undisturbed")


def test_a_server_that_does_not_answer_gets_a_sentence(between: Network, url: str) -> None:
    between.fault, between.fraction, between.patience = "hang", 1.0, 0.5
    with pytest.raises(GazetteerError, match=rf"Cannot (read|write) {url}/_meta/run.json .*what was begun goes on"):
        RunFolder(url).open_or_create({"config": "abc"})
    between.fault = ""
    assert RunFolder(url).open_or_create({"config": "abc"}).exists()


def test_a_lock_whose_answer_was_lost_is_still_ones_own(between: Network, url: str) -> None:
    run = RunFolder(url)
    between.fault, between.fraction = "lose", 1.0
    create = run._files.create

    def once(name: str, content: bytes) -> bool:
        try:
            return create(name, content)
        except GazetteerError:
            between.fault = ""
            return create(name, content)  # what a client does that asks again

    run._files.create = once  # type: ignore[method-assign]
    with run.lock():
        assert between.spoiled["lose PUT"] >= 1
        with pytest.raises(LockedError), RunFolder(url).lock():
            pass


def test_a_bucket_that_does_not_exist_gets_a_sentence(server: str) -> None:
    with pytest.raises((GazetteerError, InputError), match="s3://no-such-bucket/run"):
        RunFolder("s3://no-such-bucket/run").open_or_create({})


@pytest.mark.parametrize("store", ["ignores", "refuses", "terse", ""])
def test_what_must_be_unique_stays_so_on_lesser_stores(
    between: Network, url: str, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The settings, the plan and the shards of the first driver stay, and a second driver is kept out."""
    between.store = store
    run = RunFolder(url).open_or_create({"seed": 3})
    with run.lock():
        assert run.write_plan("plan-1", {"items": [3]}) == {"items": [3]}
        commit(run, "a", 3)
        with pytest.raises(LockedError), RunFolder(url).lock():
            pass
    assert ("cannot create a name only once" in caplog.text) == (store in ("ignores", "refuses"))
    assert caplog.text.count("cannot create a name only once") <= 1 + 1, "once for every folder that was written to"
    with pytest.raises(InputError, match="seed: was 3, now 5"):
        RunFolder(url).open_or_create({"seed": 5})
    assert RunFolder(url).open_or_create({"seed": 3}).write_plan("plan-1", {"items": [5]}) == {"items": [3]}
    assert commit(RunFolder(url), "a", 5).info == {"seen": 3}
    assert run.read_table("evidence")["images"].to_pylist() == [3]
    run.finish({"shards": ["a"]})
    assert run.check().problems == []
    assert not [name for name in content(url) if "probe" in name or "staging" in name]


def test_two_drivers_that_start_together_on_a_store_without_conditions_do_not_both_go_on(
    between: Network, url: str
) -> None:
    between.store = "ignores"
    both = [script(DRIVER, between.address, url, str(count)) for count in (1, 2)]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=300) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [0, 75], [2, 75]), ended
    if 0 in codes:
        seen = [process.returncode for process in both].index(0) + 1
        assert RunFolder(url).read_json("run.json") == {"seed": seen}
        assert RunFolder(url).read_table("evidence")["images"].to_pylist() == [seen] * 6


DRIVER = """
import sys
from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import commit
seed = int(sys.argv[2])
run = RunFolder(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    run.open_or_create({"seed": seed})
    with run.lock():
        for n in range(6):
            commit(run, f"s{n}", seed)
except GazetteerError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_credentials_that_expire_are_named_and_a_renewed_command_goes_on(between: Network, url: str) -> None:
    run = RunFolder(url).open_or_create({"seed": 3})

    def work() -> None:
        with run.lock():
            commit(run, "a")
            between.answer = "ExpiredToken"
            commit(run, "b")

    with pytest.raises(GazetteerError, match=r"Cannot .*s3://.*does not accept the credentials.*renew them"):
        work()
    for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"):
        between.answer = code
        with pytest.raises(GazetteerError, match="does not accept the credentials"):
            RunFolder(url).read_table("evidence")
    between.answer = ""
    stamps = json.loads(run._files.read("_meta/lock"))
    assert stamps["token"], "the lease could not be given back"
    run._files.replace("_meta/lock", json.dumps(stamps | {"pid": 2**22 + 1}).encode())  # as when its process has ended
    again = RunFolder(url).open_or_create({"seed": 3})
    with again.lock():
        commit(again, "b")
    assert set(again.committed(verify=True)) == {"a", "b"}


def test_a_deleted_bucket_is_not_called_no_run(server: str) -> None:
    for act in (lambda run: run.exists(), lambda run: run.check(), lambda run: run.read_table("images")):
        with pytest.raises(GazetteerError, match=r"s3://deleted/run.*its bucket does not exist"):
            act(RunFolder("s3://deleted/run"))


def test_a_secret_in_an_address_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "wJalrXUtnFEMI"
    for url in (
        f"s3://AKIA:{secret}@bucket/run",
        f"sftp://user:{secret}@host/run",
        f"s3://bucket/run?X-Amz-Signature={secret}",
        f"abfs://box/run?sig={secret}&sv=1",
    ):
        for words in (["label", "--out", url], ["verify", url], ["summary", url]):
            done = in_process(*words)
            assert done.returncode == 2, done.stderr
            assert secret not in done.stdout + done.stderr
            assert "holds a password or a key" in done.stderr
    with pytest.raises(SystemExit):
        main(["summary", "run", f"s3://AKIA:{secret}@bucket/run"])  # one argument too many
    said = capsys.readouterr().err
    assert "unrecognized arguments: s3://***@bucket/run" in said and secret not in said
    assert secret not in digest_path(f"s3://AKIA:{secret}@bucket/model"), "which goes into run.json"


def test_the_job_itself_writes_the_same_run_there_as_on_disk(server: str, url: str, tmp_path: Path) -> None:
    small = ["executor=serial", "images=4", "shard_size=2", "generation.steps=2", "generation.t=[0.5]"]
    for out in (url, str(tmp_path / "run")):
        done = gazetteer("label", "--out", out, "--set", *small)
        assert done.returncode == 0, done.stderr
    assert gazetteer("verify", url).returncode == 0
    there = {name: body for name, body in content(url).items() if name.endswith(".parquet")}
    here = {f"/{path.relative_to(tmp_path / 'run')}": path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert there == here

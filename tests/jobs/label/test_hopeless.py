"""A run in which too much fails ends as soon as that is certain, and says what failed first."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.label.failures import SAMPLE, Tally
from tests.support.runs.runs import PROVENANCE, parts
from tests.support.system.running import FEW


def folder(path: Path, failed: int, total: int) -> RunFolder:
    """A run of one shard with `total` pictures, of which the last `failed` failed."""
    import pyarrow as pa

    from gazetteer.data.tables.schemas import FAILURES

    run = RunFolder(path)
    rows = [
        {"stage": "generate", "item": f"f{at}", "error": "ValueError", "message": "no class labels", "attempts": 1}
        for at in range(failed)
    ]
    tables = parts(0) | {"failures": pa.Table.from_pylist(rows, schema=FAILURES)}
    run.commit_shard("s0", tables, {"images": total - failed, "failures": failed}, PROVENANCE)
    return run


@pytest.mark.parametrize(
    ("failed", "tried", "total", "allowed", "ends"),
    [
        (11, 40, 200, 0.05, True),  # 11 of 200 are more than 5 %, whatever comes
        (10, 40, 200, 0.05, False),  # 10 are not
        (2, 4, 200, 0.005, False),  # too few were tried to say so
        (SAMPLE, SAMPLE, 100_000, 0.05, True),  # few of all, but nothing came through
        (SAMPLE, SAMPLE, 100_000, 1.0, False),  # all may fail
        (2, 4, 4, 0.25, True),  # a small run is tried whole
    ],
)
def test_when_a_run_is_given_up(
    tmp_path: Path, failed: int, tried: int, total: int, allowed: float, ends: bool
) -> None:
    tally = Tally(folder(tmp_path, failed, tried), total, allowed)
    if ends:
        with pytest.raises(GazetteerError, match=f"{failed} of .*{total} pictures could not be processed.*no class"):
            tally.check()
    else:
        tally.check()


def test_where_everything_fails_the_rest_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, run = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("".join(f"raising poison number {at}\n" for at in range(64)))
    settings = [
        *FEW, f"prompts.path={prompts}", "images=64", "shard_size=4", "coverage.first=1.0", "generation.steps=1",
        "vocabulary.ask=both", "vocabulary.nouns=tests.support.system.toy_work:nouns", "executor=serial",
    ]  # fmt: skip
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raising")
    command = ["label", "--out", str(run), "--set", *settings]
    assert main(command) == 1
    assert f"{SAMPLE} of the first {SAMPLE} of 64 pictures could not be processed" in capsys.readouterr().err
    assert len(list(run.glob("_meta/commits/*.json"))) == SAMPLE // 4
    assert main(command) == 1, "and not tried again by itself"
    assert len(list(run.glob("_meta/commits/*.json"))) == SAMPLE // 4
    monkeypatch.delenv("GAZETTEER_TEST_POISON")
    assert main([*command[:3], "--retry-failed", *command[3:], "labels.min_images=2"]) == 0
    assert not (run / "_meta/retry-2.json").exists(), "what failed was tried first, the rest after it"
    retries = [len(pq.read_table(part)) for part in run.glob("images/*-retry-1.parquet")]
    assert retries == [4] * (SAMPLE // 4), "as many pictures a shard as in any pass"

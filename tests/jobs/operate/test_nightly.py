"""Nightly labelling does what is new, takes over pictures, and moves `latest` to complete runs only."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from gazetteer.data.core.errors import GazetteerError, InputError, LockedError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.label.job import label
from gazetteer.jobs.label.shards import read_pass
from gazetteer.jobs.operate.nightly import natural, nightly
from gazetteer.labeling.pipeline.config import STAGES
from gazetteer.labeling.pipeline.stages import Stages
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from tests.data.inputs.given.folders import coco_folder
from tests.data.storage.test_object_store import content
from tests.support.runs.runs import rewrite
from tests.support.system.running import ONE_SITE, ROOT, SMALL, digests

SITE = Site("mid_block.attentions.0", "cond", 1.0)
EMBEDDED = ROOT / "data/scenes/models/saes" / SITE.slug
SETTINGS = [*SMALL, *ONE_SITE, "executor=serial", "generation.steps=2", "images=4", "coverage.first=1.0"]
SETTINGS += ["labels.min_images=1", "shard_size=2"]


def config(*settings: str) -> RunConfig:
    return load_config(None, [*SETTINGS, *settings])


def checkpoint(folder: Path, name: str, turn: int) -> Path:
    """A checkpoint whose features are those of the embedded autoencoder, `turn` numbers further on."""
    sae, _ = load_pretrained(EMBEDDED)
    turned, rolled = SparseAutoencoder(sae.config), ("encoder", "decoder", "latent_bias")
    turned.load_state_dict({k: v.roll(turn, 0) if k in rolled else v for k, v in sae.state_dict().items()})
    turned.save_pretrained(folder / name / SITE.slug, {"site": SITE}, torch.float16)
    return folder / name


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    return {row["checkpoint"]: row["outcome"] for row in found["checkpoints"]}


def test_three_nights(tmp_path: Path) -> None:
    checkpoints, out = tmp_path / "checkpoints", tmp_path / "nightly"
    checkpoint(checkpoints, "step-9", 0)
    swapped = checkpoint(checkpoints, "step-10", 3)
    (checkpoints / "step-11").mkdir()

    first = nightly(config(), checkpoints, str(out))
    assert outcomes(first) == {"step-9": "labelled", "step-10": "labelled", "step-11": "unfinished"}
    old, new, _ = first["checkpoints"]
    assert (old["images"], old["replayed"]) == (4, 0)
    assert (new["images"], new["replayed"]) == (4, 4)
    assert "replay of the same seeds" in new["message"]
    assert first["latest"] == new["run"]
    assert (out / "latest").resolve() == (out / new["run"]).resolve()
    assert json.loads((out / "latest.json").read_text())["run"] == new["run"]

    scratch = tmp_path / "scratch"
    label(config(f"saes={swapped}"), scratch)
    assert digests(out / new["run"]) == digests(scratch), "a replay gives what a run from nothing gives"

    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    second = nightly(config(), checkpoints, str(out))
    assert outcomes(second) == {"step-9": "there", "step-10": "there", "step-11": "unfinished"}
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")} == before

    checkpoint(checkpoints, "step-11", 5)
    bad = checkpoints / "step-12" / SITE.slug
    SparseAutoencoder(SAEConfig(8, 16, 4)).initialise(0).save_pretrained(bad, {"site": SITE})
    third = nightly(config(), checkpoints, str(out), keep=1)
    assert outcomes(third) == {"step-9": "there", "step-10": "there", "step-11": "labelled", "step-12": "failed"}
    assert "8 channels" in third["checkpoints"][-1]["message"]
    assert third["latest"] == third["checkpoints"][2]["run"], "latest never names what is not complete"
    assert sorted(third["deleted"]) == sorted([old["run"], new["run"]])
    assert not (out / old["run"]).exists()
    assert (out / "latest" / "labels.parquet").is_file()

    shutil.rmtree(bad.parent)
    fourth = nightly(config(), checkpoints, str(out), keep=1)
    assert outcomes(fourth) == {"step-9": "deleted", "step-10": "deleted", "step-11": "there"}
    assert fourth["deleted"] == []


def test_an_old_run_that_somebody_works_on_goes_another_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, turn in ((9, 0), (10, 3)):
        checkpoint(tmp_path / "checkpoints", f"step-{number}", turn)
    words = ["nightly", "--checkpoints", str(tmp_path / "checkpoints"), "--out", str(tmp_path / "out")]
    assert main([*words, "--set", *SETTINGS]) == 0
    (old,) = (tmp_path / "out").glob("step-9-*")
    capsys.readouterr()
    with RunFolder(old).lock():
        assert main([*words, "--keep", "1", "--set", *SETTINGS]) == 0
    said = capsys.readouterr().out
    assert "step-10" in said and f"kept for now, as another process holds them: {old.name}" in said and old.is_dir()
    assert main([*words, "--keep", "1", "--set", *SETTINGS]) == 0
    assert f"deleted: {old.name}" in capsys.readouterr().out and not old.exists()


@pytest.mark.parametrize("what", ["notes", "list", "folder", "file", "link"])
def test_pointers_of_a_persons_own_are_refused_before_anything_is_labelled(what: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if what in ("notes", "list"):
        (out / "latest.json").write_text('{"mine": 1}' if what == "notes" else "[]")
    elif what == "folder":
        (out / "latest").mkdir()
    elif what == "file":
        (out / "latest").write_text("mine")
    else:
        (out / "latest").symlink_to(tmp_path)
    checkpoint(tmp_path / "checkpoints", "step-9", 0)
    name = "latest.json is not what" if what in ("notes", "list") else "latest is no link to a run beside it"
    with pytest.raises(InputError, match=name):
        nightly(config(), tmp_path / "checkpoints", str(out))
    assert not list(out.glob("step-*"))


def test_a_picture_that_failed_is_said_every_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path / "checkpoints", "step-9", 0)
    (tmp_path / "prompts.txt").write_text("a boat on the sea\na raising poison and a boat\n")
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raising")
    settings = [f"prompts.path={tmp_path / 'prompts.txt'}", "images=2", "heldout=0.0", "max_failed_fraction=0.5"]
    settings += ["vocabulary.ask=both", "vocabulary.nouns=tests.support.system.toy_work:nouns"]
    words = ["nightly", "--checkpoints", str(tmp_path / "checkpoints"), "--out", str(tmp_path / "out")]
    for outcome in ("labelled", "there"):
        assert main([*words, "--set", *SETTINGS, *settings]) == 3
        assert re.search(rf"step-9 +{outcome} .*1 pictures failed .*--retry-failed", capsys.readouterr().out)


def test_nights_in_a_bucket(server: str, tmp_path: Path) -> None:
    """Pictures are taken over, `latest.json` moves and old runs go, all behind a URL."""
    checkpoints, out = tmp_path / "checkpoints", "s3://bucket/nightly"
    checkpoint(checkpoints, "step-9", 0)
    assert outcomes(nightly(config(), checkpoints, out, keep=1)) == {"step-9": "labelled"}
    checkpoint(checkpoints, "step-10", 3)
    found = nightly(config(), checkpoints, out, keep=1)
    assert outcomes(found) == {"step-9": "there", "step-10": "labelled"}
    old, new = (row["run"] for row in found["checkpoints"])
    assert (found["checkpoints"][1]["replayed"], found["latest"], found["deleted"]) == (4, new, [old])
    there = content(out)
    assert json.loads(there["/latest.json"])["run"] == new
    assert not [name for name in there if name.startswith((f"/{old}/", "/latest/"))]

    label(config(f"saes={checkpoints / 'step-10'}"), tmp_path / "scratch")
    tables = {name.removeprefix(f"/{new}/"): hashlib.sha256(body).hexdigest() for name, body in there.items()}
    wanted = digests(tmp_path / "scratch")
    assert {name: digest for name, digest in tables.items() if name.endswith(".parquet")} == wanted

    again = nightly(config(), checkpoints, out, keep=1)
    assert outcomes(again) == {"step-9": "deleted", "step-10": "there"}
    assert content(out) == there


def test_what_is_damaged_in_the_earlier_run_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A part cut short, and a picture whose bytes are no picture though its record vouches for them."""
    base, saes = tmp_path / "base", checkpoint(tmp_path, "swapped", 3)
    label(config(), base)
    first, second = sorted((base / "images").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:100])

    def torn(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-20]
        return pa.Table.from_pylist(rows, schema=table.schema)

    rewrite(second, torn)
    manifest = label(config(f"saes={saes}"), tmp_path / "run", reuse=base)
    assert (manifest["images"], manifest["replayed"], manifest["failing"]) == (4, 1, [])
    assert caplog.text.count("made again") == 2
    label(config(f"saes={saes}"), tmp_path / "scratch")
    assert digests(tmp_path / "run") == digests(tmp_path / "scratch")

    # Workers that do some stages each agree on which pictures were taken over.
    items = [shard.items for shard in read_pass(RunFolder(base), "plan-1") or []]
    generate = Stages(config().stages, STAGES[:1], str(base))
    rest = Stages(config().stages, STAGES[1:], str(base))
    results = [rest.run(pickle.loads(pickle.dumps(generate.run(shard)))) for shard in items]
    assert sorted(result.counts["replayed"] for result in results) == [0, 1]
    found = pa.concat_tables([result.tables["segments"] for result in results])
    assert found.num_rows == RunFolder(tmp_path / "scratch").read_table("segments").num_rows


def test_pictures_that_no_run_has_are_made(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    label(config("images=2"), small)
    manifest = label(config(), large, reuse=small)
    assert (manifest["images"], manifest["replayed"]) == (4, 2)
    label(config(), tmp_path / "scratch")
    assert digests(large) == digests(tmp_path / "scratch")


def test_nothing_is_looked_for_in_pictures_that_are_taken_over(tmp_path: Path) -> None:
    base = tmp_path / "base"
    label(config("images=2"), base)
    plan = json.loads((base / "_meta/plan-1.json").read_text())["items"]
    stages = Stages(config().stages, reuse=str(base))
    result = stages.run([Item(row["prompt"], row["seed"], row["image_id"]) for row in plan])
    assert result.counts["replayed"] == result.counts["images"] == 2
    assert stages.detector is None, "it was never needed, and so never loaded"
    assert result.tables["segments"].num_rows == RunFolder(base).read_table("segments").num_rows > 0


def test_pictures_of_other_settings_are_not_taken_over(tmp_path: Path) -> None:
    RunFolder(tmp_path / "base").open_or_create({"generation.steps": 2, "saes": "sha256:x"})
    with pytest.raises(InputError, match=r"generation\.guidance"):
        label(config(), tmp_path / "run", reuse=tmp_path / "base")
    with pytest.raises(InputError, match="not a run folder"):
        label(config(), tmp_path / "run", reuse=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


def test_only_one_night_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    words = ["nightly", "--checkpoints", str(tmp_path / "checkpoints"), "--out", str(tmp_path / "out")]
    with RunFolder(tmp_path / "out").lock():
        with pytest.raises(LockedError):
            nightly(config(), tmp_path / "checkpoints", str(tmp_path / "out"))
        assert main([*words, "--set", *SETTINGS]) == 75
    assert "holds" in capsys.readouterr().err
    assert main([*words, "--set", *SETTINGS]) == 0


def test_folders_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder of checkpoints .* does not exist"):
        nightly(config(), tmp_path / "none", str(tmp_path / "out"))
    with pytest.raises(InputError, match="one checkpoint itself"):
        nightly(config(), EMBEDDED.parent, str(tmp_path / "out"))


def test_a_forged_history_deletes_nothing_outside(tmp_path: Path) -> None:
    victim = RunFolder(tmp_path / "victim").open_or_create({"config": "abc"})
    run = {"checkpoint": "x", "complete": "2026-01-01", "deleted": True}
    RunFolder(tmp_path / "out").write_json("nightly.json", {"runs": {"../victim": run}})
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(GazetteerError, match="not a usable name"):
        nightly(config(), tmp_path / "checkpoints", str(tmp_path / "out"), keep=1)
    assert victim.exists()


@pytest.mark.parametrize("runs", [None, [], {"a": 3}, {"a": {"complete": "2026-01-01"}}, {"a": {"checkpoint": "a"}}])
def test_a_damaged_history_is_not_taken_for_none(tmp_path: Path, runs: Any) -> None:
    root = RunFolder(tmp_path / "out")
    root.write_json("nightly.json", {"runs": runs} if runs is not None else [])
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"nightly\.json is no history"):
        nightly(config(), tmp_path / "checkpoints", root.path)
    kept = json.loads((tmp_path / "out/_meta/nightly.json").read_text())
    assert kept == ({"runs": runs} if runs is not None else [])


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["step-10", "step-9", "final", "step-1000", "a2b10", "a2b9"]
    assert sorted(["9²", "10²", "²"], key=natural) == ["9²", "10²", "²"]
    assert sorted(names, key=natural) == ["a2b9", "a2b10", "final", "step-9", "step-10", "step-1000"]


def test_given_pictures_are_read_anew_every_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`label` refuses to take over given pictures, whatever an earlier night has of them."""
    given = config(f"pictures.coco={coco_folder(tmp_path / 'coco')}")
    for number in (1, 2):
        checkpoint(tmp_path / "checkpoints", f"step-{number}", number)
    asked: list[Any] = []

    def finished(one: RunConfig, out: str, *, reuse: str | None) -> dict[str, Any]:
        RunFolder(out).open_or_create(fingerprint_of(one)).finish({"shards": []})
        asked.append(reuse)
        return {"images": 2, "replayed": 0, "failing": []}

    monkeypatch.setattr("gazetteer.jobs.operate.nightly.label", finished)
    assert set(outcomes(nightly(given, tmp_path / "checkpoints", str(tmp_path / "given"))).values()) == {"labelled"}
    nightly(config(), tmp_path / "checkpoints", str(tmp_path / "drawn"))
    assert asked[:3] == [None, None, None] and asked[3] is not None

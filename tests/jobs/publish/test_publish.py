"""A run goes out byte for byte, with cards that readers open by name, to a folder and to a hub, and comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

import gazetteer
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.hub import hub_url
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import EXAMINERS
from gazetteer.jobs.explore.notes import Note, Notes
from gazetteer.jobs.label import card
from gazetteer.jobs.label.card import write_card
from gazetteer.jobs.publish.hub import repository_of
from gazetteer.jobs.publish.run import publish
from tests.support.runs.runs import finished_run
from tests.support.servers.hub_server import TOKEN, hub
from tests.support.system.running import ROOT, digests, in_process

SAES = ROOT / "data" / "scenes" / "models" / "saes"


@pytest.fixture(scope="module")
def published(scenes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's run, published to a folder."""
    out = tmp_path_factory.mktemp("published") / "scenes"
    publish(scenes_run, str(out), license="mit", title="Scenes, named")
    return out


def test_a_folder_holds_the_run_byte_for_byte_and_its_card(scenes_run: Path, published: Path) -> None:
    assert digests(published) == digests(scenes_run)
    assert gazetteer.load_labels(published).equals(gazetteer.load_labels(scenes_run))
    assert gazetteer.load_images(published).num_rows == gazetteer.load_images(scenes_run).num_rows
    text = (published / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["pretty_name"]) == ("mit", "Scenes, named")
    labelled = sum(site["labelled"] for site in gazetteer.summarise(scenes_run)["sites"])
    assert f"What {labelled:,} of the " in text
    named = text.partition("labels them best:")[2].partition("\n\nt is")[0]
    assert sum(int(line.split("|")[2].replace(",", "")) for line in named.splitlines()[4:]) == labelled
    assert not (published / "_meta" / "log.jsonl").exists()


def test_tables_open_by_name_from_the_run_and_from_what_was_published(
    scenes_run: Path, published: Path, tmp_path: Path
) -> None:
    import datasets

    for folder in (scenes_run, published):
        configs = datasets.get_dataset_config_names(str(folder))
        assert set(configs) == {
            "labels", "features", "candidates", "images", "segments", "codes", "evidence", "failures",
        }  # fmt: skip
        pairs = datasets.load_dataset(str(folder), "candidates", split="train", cache_dir=str(tmp_path / folder.name))
        assert pairs.num_rows == gazetteer.load_candidates(folder).num_rows > 0
        images = datasets.load_dataset(str(folder), "images", split="train", cache_dir=str(tmp_path / folder.name))
        assert images[0]["image"].size == (images[0]["width"], images[0]["height"])


def test_croissant_describes_every_file_and_column(published: Path) -> None:
    import hashlib

    import pyarrow.parquet as pq

    described = json.loads((published / "croissant.json").read_text())
    files = {file["@id"]: file for file in described["distribution"]}
    assert files["labels-files"]["sha256"] == hashlib.sha256((published / "labels.parquet").read_bytes()).hexdigest()
    for records in described["recordSet"]:
        pattern = files[f"{records['name']}-files"].get("includes") or files[f"{records['name']}-files"]["contentUrl"]
        some = next(iter(sorted(published.glob(pattern))))
        assert [field["name"] for field in records["field"]] == pq.read_schema(some).names


def test_publishing_again_writes_nothing_and_a_half_written_folder_is_finished(
    scenes_run: Path, published: Path
) -> None:
    again = publish(scenes_run, str(published), license="mit", title="Scenes, named")
    assert (again["written"], again["removed"]) == (0, 0)
    before = digests(published)
    (published / "labels.parquet").write_bytes(b"torn")
    (published / "_meta" / "_SUCCESS").unlink()
    (published / "images" / "part-of-an-older-run.parquet").write_bytes(b"")
    mended = publish(scenes_run, str(published), license="mit", title="Scenes, named")
    assert (mended["written"], mended["removed"]) == (2, 1)
    assert digests(published) == before


def test_what_cannot_be_published_is_refused_with_a_sentence(scenes_run: Path, tmp_path: Path) -> None:
    def refusal(*arguments: str) -> str:
        result = in_process("publish", *arguments)
        assert result.returncode == 2, result.stderr
        return result.stderr

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "labels.csv").write_text("my own")
    assert "neither empty nor an earlier publication" in refusal(str(scenes_run), "--to", str(mine))
    assert [path.name for path in mine.iterdir()] == ["labels.csv"]
    assert "is the run itself" in refusal(str(scenes_run), "--to", str(scenes_run))
    assert "names no repository" in refusal(str(scenes_run), "--to", "hf:scenes")
    assert "no identifier of the hub" in refusal(str(scenes_run), "--to", str(tmp_path / "a"), "--license", "My own")
    other = tmp_path / "other-saes"
    shutil.copytree(SAES, other, ignore=shutil.ignore_patterns("*uncond*"))
    assert "not hold the autoencoders" in refusal(str(scenes_run), "--to", str(tmp_path / "b"), "--saes", str(other))
    damaged = tmp_path / "damaged"
    shutil.copytree(scenes_run, damaged)
    part = next((damaged / "images").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    assert f"images/{part.name} has" in refusal(str(damaged), "--to", str(tmp_path / "c"))
    (damaged / "_meta" / "_SUCCESS").unlink()
    part.write_bytes((scenes_run / "images" / part.name).read_bytes())
    assert "is not a finished run" in refusal(str(damaged), "--to", str(tmp_path / "d"))
    assert not (tmp_path / "c").exists() and not (tmp_path / "d").exists()


@pytest.mark.parametrize("to", ["runs/../runs/run", "link", "file://{here}/runs/run", "runs/run/", "link/../run"])
def test_the_run_itself_is_known_however_it_is_written(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished_run(tmp_path / "runs" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "runs" / "run")
    (tmp_path / "runs" / "run" / "_meta" / "log.jsonl").write_text("{}\n")
    before = {file: file.read_bytes() for file in tmp_path.glob("runs/run/**/*") if file.is_file()}
    with pytest.raises(InputError, match="is the run itself"):
        publish("runs/run", to.replace("{here}", str(tmp_path)))
    assert {file: file.read_bytes() for file in tmp_path.glob("runs/run/**/*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("to", "wrong"),
    [
        ("link/out", "lies in the run"),
        ("file://{here}/runs/run/out", "lies in the run"),
        ("runs", "holds the run"),
        ("saes/out", "lies in --saes"),
        ("saes", "lies in --saes"),
        (".", "holds the run"),
    ],
)
def test_what_is_published_and_its_goal_lie_apart(
    to: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished_run(tmp_path / "runs" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "runs" / "run")
    (tmp_path / "saes").mkdir()
    with pytest.raises(InputError, match=wrong):
        publish("runs/run", to.replace("{here}", str(tmp_path)), saes="saes")


def test_what_somebody_put_into_a_publication_stays(scenes_run: Path, published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(published, out)
    for name in ("notes/mine.txt", "mine.parquet"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("my own")
    again = publish(scenes_run, str(out), license="mit", title="Scenes, named")
    assert again["removed"] == 0
    assert (out / "notes" / "mine.txt").read_text() == (out / "mine.parquet").read_text() == "my own"


def test_notes_stay_where_they_were_written(scenes_run: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(scenes_run, run)
    Notes(RunFolder(run)).put("mid_block.attentions.0-cond-t0.50", 1, Note(True, "between you and me"))
    (run / "_meta" / "given.json").write_text("{}")  # sizes and times of files on this machine
    publish(run, str(out))
    assert not (out / "_meta" / "notes.json").exists() and not (out / "_meta" / "given.json").exists()
    (out / "_meta" / "notes.json").write_text("{}")  # somebody's who reads the publication
    publish(run, str(out))
    assert (out / "_meta" / "notes.json").read_text() == "{}"


def test_autoencoders_are_those_of_the_run_and_others_are_not_left_out_silently(
    scenes_run: Path, tmp_path: Path
) -> None:
    run, own, other = tmp_path / "run", tmp_path / "own", tmp_path / "other"
    shutil.copytree(scenes_run, run)
    shutil.copytree(SAES, own)
    shutil.copytree(SAES, other, ignore=shutil.ignore_patterns("*uncond*"))
    kept = json.loads((run / "_meta" / "config.json").read_text())
    (run / "_meta" / "config.json").write_text(json.dumps({**kept, "saes": str(own)}))
    with patch("gazetteer.jobs.config.schema.DEFAULT_CONFIG", tmp_path / "none.yaml"):  # the run says what it is
        done = in_process("publish", str(run), "--to", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "saes" / "mid_block.attentions.0-cond-t0.50" / "config.json").exists()
    refused = in_process("publish", str(run), "--to", str(tmp_path / "none"), "--set", f"saes={other}")
    assert refused.returncode == 2 and "no folder of the autoencoders" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_card_says_where_pictures_are_from_and_tells_sites_apart(
    scenes_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, summary = read_provenance(scenes_run / "labels.parquet"), gazetteer.summarise(scenes_run)
    assert "are generated by the model" in card.card(str(scenes_run), [], card.Published())
    site = summary["sites"][0]
    sites = [site, {**site, "signal": "output"}, {**site, "stream": "text"}]
    given = {**made, "config": {**made["config"], "pictures.coco": "val2017"}}
    monkeypatch.setattr(card, "read_provenance", lambda *_: given)
    monkeypatch.setattr(card, "summarise", lambda _: {**summary, "sites": sites})
    text = card.card(str(scenes_run), [], card.Published())
    assert "were not generated: they are those of `val2017`" in text and "generated by the model" not in text
    assert "| pictures | `val2017` |" in text and "| detector |" not in text and "the detector was asked" not in text
    rows = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith(f"| `{site['block']}")]
    assert rows == [site["block"], f"{site['block']}-output", f"{site['block']}-text"]


@pytest.mark.parametrize("name", ["run.json", "plan-1.json", "manifest.json", "hub.json"])
def test_half_a_record_is_not_passed_on(name: str, scenes_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes_run, run)
    file = run / "_meta" / name
    whole = file.read_bytes() if file.exists() else b'{"notes": []}'
    file.write_bytes(whole[: len(whole) // 2])
    refused = in_process("publish", str(run), "--to", str(tmp_path / "out"))
    assert refused.returncode == 2 and f"_meta/{name}" in refused.stderr, refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


SCRIPT = """
import json, sys
import gazetteer
from gazetteer.jobs.publish import hub
from gazetteer.jobs.publish.run import publish

hub.FILES_A_COMMIT = 15
run, saes = sys.argv[1:]
said = []
for to in ("hf:ada/scenes", "hf:ada/scenes", "hf:ada/scenes", "hf:bob/scenes", "hf:ada/taken"):
    try:
        report = publish(run, to, saes=saes, license="mit")
        said.append([report["written"], report["private"], report["saes"]["written"]])
    except gazetteer.GazetteerError as error:
        said.append(str(error))
labels = gazetteer.load_labels("hf:ada/scenes")
images = gazetteer.load_images("hf:ada/scenes", columns=["image_id"])
try:
    gazetteer.label(gazetteer.load_config(None), "hf:ada/new")
except gazetteer.InputError as error:
    said.append(str(error))
print(json.dumps({"said": said, "labels": labels.num_rows, "images": images.num_rows}))
"""


def test_a_hub_gets_the_run_resumes_after_a_refusal_and_gives_it_back(scenes_run: Path, tmp_path: Path) -> None:
    with hub() as server:
        environment = os.environ | {
            "HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        from tests.support.servers.hub_server import Repository

        server.repositories["dataset", "ada/taken"] = Repository(private=False, files={"cats.csv": b"meow"})
        server.refuse_commit = 3
        command = [sys.executable, "-c", SCRIPT, str(scenes_run), str(SAES)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        stopped, resumed, again, stranger, taken, label = answer["said"]
        assert "the same command goes on from there" in stopped
        files = server.repositories["dataset", "ada/scenes"].files
        assert resumed == [len(files) - 1 - 30, True, 49]  # two commits of 15 were there; .gitattributes is the hub's
        assert again == [0, True, 0]
        assert "does not let this token write to bob/scenes" in stranger
        assert "holds something else (cats.csv)" in taken
        assert "where runs are only read" in label
        assert server.repositories["dataset", "ada/taken"].files == {"cats.csv": b"meow"}
        assert {path: files[path] for path in files if path.endswith(".parquet")} == {
            path.relative_to(scenes_run).as_posix(): path.read_bytes() for path in scenes_run.rglob("*.parquet")
        }
        assert server.repositories["dataset", "ada/scenes"].commits[-1][1][-1] == "_meta/_SUCCESS"
        readme = server.repositories["model", "ada/scenes-saes"].files["README.md"].decode()
        assert yaml.safe_load(readme.split("---\n")[1])["datasets"] == ["ada/scenes"]
        assert answer["labels"] == gazetteer.load_labels(scenes_run).num_rows
        assert answer["images"] == gazetteer.load_images(scenes_run).num_rows


@pytest.mark.parametrize("address", ["hf:ada/scenes", "hf://datasets/ada/scenes", "hf:ada/scenes@v1"])
def test_addresses_of_the_hub(address: str) -> None:
    assert hub_url(address).startswith("hf://datasets/ada/scenes")


@pytest.mark.parametrize("address", ["hf:", "hf:scenes", "hf:ada/../x", "hf://ada/scenes", "hf:ada/scenes/labels"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InputError):
        hub_url(address)
    with pytest.raises(InputError):
        repository_of(address)
    assert repository_of("runs/scenes") is None


def test_a_card_follows_the_tables_and_leaves_a_readme_of_the_users_alone(scenes_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes_run, run)
    store = RunFolder(run)
    store.write_final("examiners", EXAMINERS.empty_table(), read_provenance(run / "labels.parquet"))
    write_card(store)
    head = yaml.safe_load((run / "README.md").read_text().split("---\n")[1])
    assert {"config_name": "examiners", "data_files": "examiners.parquet"} in head["configs"]
    (run / "README.md").write_text("my own")
    write_card(run)
    assert (run / "README.md").read_text() == "my own"


def test_a_card_and_a_description_of_a_persons_own_are_not_written_over(scenes_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("my own")
    with pytest.raises(InputError, match=r"out/README.md is not what gazetteer publish left there"):
        publish(scenes_run, str(out))
    assert [place.name for place in out.iterdir()] == ["README.md"] and (out / "README.md").read_text() == "my own"
    (out / "README.md").unlink()
    publish(scenes_run, str(out))
    assert publish(scenes_run, str(out), title="Another title")["written"] == 3, "card, description and mark"
    described = json.loads((out / "croissant.json").read_text())
    for name, text in {"README.md": "my own", "croissant.json": json.dumps({**described, "citeAs": "me"})}.items():
        own = (out / name).read_text()
        (out / name).write_text(text)
        with pytest.raises(InputError, match=f"out/{name} is not what gazetteer publish left there"):
            publish(scenes_run, str(out), title="A third")
        assert (out / name).read_text() == text
        (out / name).write_text(own)


def test_tables_of_another_run_are_no_publication_that_was_stopped(scenes_run: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"another run's")
    with pytest.raises(InputError, match="neither empty nor an earlier publication"):
        publish(scenes_run, str(tmp_path))
    assert (tmp_path / "labels.parquet").read_bytes() == b"another run's"

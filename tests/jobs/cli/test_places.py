"""Pages and files of a run that is named by a URL go where its folder is, or are refused; never into ./s3:/…."""

from __future__ import annotations

from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.own_files import OwnFiles
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.explore.shelf import atlas_of
from gazetteer.jobs.label.progress.logs import log_file
from tests.support.runs.atlas_run import make_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_pages_of_a_file_url_lie_in_the_folder_itself(tmp_path: Path, here: Path) -> None:
    make_run(tmp_path / "run")
    url = f"file://{tmp_path / 'run'}"
    assert main(["atlas", url]) == main(["rate", url, "--features", "2"]) == 0
    assert (tmp_path / "run" / "atlas" / "index.html").is_file() and (
        tmp_path / "run" / "rate" / "index.html"
    ).is_file()
    served = atlas_of(RunFolder(url), tmp_path / "scratch", "", "update", lambda *_: None)
    assert served == tmp_path / "run" / "atlas", "it is the run's own, and is not written again"
    (served / "data" / "atlas.js").write_text('Atlas.put("atlas",' + "[" * 100_000)
    with pytest.raises(InputError, match="holds other autoencoders"):  # needed as it is to be written again
        atlas_of(RunFolder(url), tmp_path / "scratch", "", "update", lambda *_: None)
    assert main(["rate", url, "--features", "2", "--out", f"file://{tmp_path / 'rate'}"]) == 0
    assert (tmp_path / "rate" / "index.html").is_file()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("verb", ["atlas", "rate"])
@pytest.mark.parametrize("run", ["s3://bucket/run", "hf:ada/scenes", "hf://datasets/ada/scenes"])
def test_pages_of_a_run_elsewhere_ask_for_a_folder(
    verb: str, run: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, run]) == 2
    assert "say with --out FOLDER where the pages go" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_nothing_is_written_to_a_folder_called_like_a_url(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run")
    run = str(tmp_path / "run")
    for words, said in (
        (["atlas", run, "--out", "s3://bucket/atlas"], "is not on this machine"),
        (["rate", run, "--out", "s3://bucket/rate"], "is not on this machine"),
        (["export", run, "--csv", "s3://bucket/labels.csv"], "is a URL"),
        (["export", run, "--voc", "s3://bucket/voc"], "is a URL"),
        (["export", run, "--coco", "file:///tmp/coco.json"], "is a URL"),
        (["compare", run, run, "--out", "s3://bucket/changes.parquet"], "is a URL"),
    ):
        assert main(words) == 2, words
        assert said in capsys.readouterr().err
    with pytest.raises(InputError, match="is not on this machine"):
        OwnFiles("s3://bucket/layout")
    assert list(here.iterdir()) == []
    assert log_file("hf:ada/scenes") == log_file("s3://bucket/run") == []


def test_a_link_inside_a_run_is_refused_by_its_url_too(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "causal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        RunFolder(f"file://{tmp_path / 'run'}").inside("causal")

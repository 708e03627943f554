"""A run that is being removed is known for one until nothing else of it is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.local import LocalFiles
from gazetteer.data.storage.open import open_files

NAMES = ("images/part-a.parquet", "labels.parquet", "_meta/commits/a.json", "_meta/plan-1.json")


def run_at(place: str) -> RunFolder:
    run = RunFolder(place).open_or_create({"seed": 1})
    for name in NAMES:
        open_files(place).replace(name, b"x")
    return run


def test_a_folder_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_at(str(tmp_path / "run"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "run" / "images" / "link").symlink_to(outside)
    (tmp_path / "run" / "link").symlink_to(outside)
    whole = shutil.rmtree

    def stopped(folder: Any, *given: Any, **more: Any) -> None:
        if Path(folder).name == "commits":
            raise OSError(5, "Input/output error")
        whole(folder, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", stopped)
        with pytest.raises(GazetteerError):
            run.delete()
    assert run.exists() and not (tmp_path / "run" / "images").exists()
    run.delete()
    assert not (tmp_path / "run").exists() and outside.exists()


def test_what_lies_behind_a_url_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_at("memory://removal/run")
    files = open_files("memory://removal/run")
    assert not isinstance(files, LocalFiles)
    filesystem = type(files._fs)
    whole, removed = filesystem.rm_file, []

    def stopped(self: Any, path: str) -> None:
        if len(removed) == len(NAMES):
            raise OSError(5, "Input/output error")
        removed.append(path)
        whole(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(filesystem, "rm_file", stopped)
        with pytest.raises(GazetteerError):
            files.remove_tree()
    assert run.exists()
    files.remove_tree()
    assert not run.exists()

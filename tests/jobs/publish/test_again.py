"""Publishing again takes away what an earlier publication brought, and nothing that people put beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.jobs.publish.folder import publish_to_folder
from gazetteer.jobs.publish.hub import publish_to_hub
from gazetteer.jobs.publish.publication import _is_stub

FILES = {
    "labels.parquet": b"l", "images/part-aaaaaaaaaaaaaaaa.parquet": b"i", "_meta/run.json": b"{}",
    "_meta/manifest.json": b"{}", "_meta/plan-1.json": b"{}", "_meta/commits/a.json": b"{}", "README.md": b"r",
    "_meta/_SUCCESS": b"x",
}  # fmt: skip
PEOPLES = {
    "_meta/notes.json", "rate/answers.json", "rate/index.html", "atlas/index.html", "causal/part-1.parquet",
    "mine/paper.tex", "mine.parquet", "images/sketch.png", "trials/part-1.parquet", "LICENSE",
}  # fmt: skip
OLDER = {
    "features.parquet", "images/part-bbbbbbbbbbbbbbbb.parquet", "_meta/commits/b.json", "_meta/retry-1.json",
    "_meta/groups.json",
}  # fmt: skip


class Fixed:
    """A bundle of given files."""

    def __init__(self) -> None:
        self.content, self.names = SimpleNamespace(run="run"), list(FILES)
        self.own = {"README.md": lambda readme: readme.startswith(b"ours")}

    def read(self, name: str) -> bytes:
        return FILES[name]


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def put(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("somebody's")


def test_a_folder_keeps_what_people_put_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle: Any = Fixed()
    publish_to_folder(bundle, tmp_path)
    put(tmp_path, PEOPLES | OLDER)
    assert publish_to_folder(bundle, tmp_path)["removed"] == len(OLDER)
    assert below(tmp_path) == FILES.keys() | PEOPLES
    said = capsys.readouterr().err
    assert all(name in said for name in OLDER) and not any(name in said for name in PEOPLES)


@pytest.mark.parametrize("table", ["causal.parquet", "examiners.parquet"])
def test_a_table_of_hours_is_refused_before_anything_is_removed(table: str, tmp_path: Path) -> None:
    bundle: Any = Fixed()
    publish_to_folder(bundle, tmp_path)
    put(tmp_path, {table, *OLDER})
    with pytest.raises(InputError, match=f"holds {table}, which the run has not"):
        publish_to_folder(bundle, tmp_path)
    assert below(tmp_path) == {*FILES, table, *OLDER}


class Api:
    """A repository of the hub, as far as a publication asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.deleted = folder, list[str]()

    def create_repo(self, name: str, **_: Any) -> str:
        return name

    def repo_info(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(private=True)

    def list_repo_tree(self, *_: Any, **__: Any) -> Any:
        return [SimpleNamespace(path=name, blob_id="", lfs=None) for name in below(self.folder)]

    def hf_hub_download(self, _: str, name: str, **__: Any) -> str:
        return str(self.folder / name)

    def create_commit(self, _: str, operations: list[Any], **__: Any) -> None:
        gone = (huggingface_hub.CommitOperationDelete,)
        self.deleted += [each.path_in_repo for each in operations if isinstance(each, gone)]


def test_a_repository_keeps_what_people_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle: Any = Fixed()
    publish_to_folder(bundle, tmp_path)
    put(tmp_path, PEOPLES | OLDER)
    api = Api(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert publish_to_hub(bundle, "ada/scenes", "dataset", False)["removed"] == len(OLDER)
    assert sorted(api.deleted) == sorted(OLDER)
    put(tmp_path, {"causal.parquet"})
    with pytest.raises(InputError, match=r"holds causal\.parquet"):
        publish_to_hub(bundle, "ada/scenes", "dataset", False)


def test_a_card_that_was_written_on_the_hub_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle: Any = Fixed()
    publish_to_folder(bundle, tmp_path)
    api = Api(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    (tmp_path / "README.md").write_text("ours, of before")
    assert publish_to_hub(bundle, "ada/scenes", "dataset", False)["written"]
    put(tmp_path, {"README.md"})
    with pytest.raises(InputError, match=r"^hf:ada/scenes/README\.md is not what gazetteer publish left there"):
        publish_to_hub(bundle, "ada/scenes", "dataset", False)


@pytest.mark.parametrize(
    ("card", "nobodys"),
    [
        (b"---\nlicense: mit\n---\n", True),  # as the hub's own page begins a repository
        (b"---\nlicense: mit\n---\n\nMine.\n", False),
        (b"---\na: 1\n---\nMine.\n---\n", False),
        (b"", False),
        (b"Mine.\n", False),
    ],
)
def test_a_header_without_a_word_is_nobodys_card(card: bytes, nobodys: bool) -> None:
    assert _is_stub(card) is nobodys


def test_a_hub_that_cannot_be_reached_is_said_and_the_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="hf_test")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: nowhere)
    bundle: Any = Fixed()
    with pytest.raises(GazetteerError, match=r"^The hub cannot be reached, to publish to ada/scenes \(.*the same comm"):
        publish_to_hub(bundle, "ada/scenes", "dataset", False)

"""Autoencoders by hub id: fetched from a real server on this machine, and only when no folder has that name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from tests.sae.formats import test_diffract
from tests.sae.formats.test_damaged import WRITERS
from tests.sae.model.test_autoencoder import random_sae
from tests.support.servers.serving import serving
from tests.support.system.running import ROOT

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
LOAD = """
import json, sys
from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.autoencoder import SparseAutoencoder
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = SparseAutoencoder.from_pretrained(name).encoder.tolist()
    except InputError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of huggingface.co as a download asks for: one repository of two revisions, in folders."""

    root: ClassVar[Path]
    fetched: ClassVar[list[str]]

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "someone", "saes"] and parts[4] == "revision" and parts[5] in COMMITS:
            self.answer({"id": "someone/saes", "sha": COMMITS[parts[5]], "siblings": []})
        elif parts[:5] == ["api", "models", "someone", "saes", "tree"]:
            files = [path for path in (self.root / parts[5]).rglob("*") if path.is_file()]
            named = [(path.relative_to(self.root / parts[5]).as_posix(), path.stat().st_size) for path in files]
            self.answer([{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in named])
        elif parts[:3] == ["someone", "saes", "resolve"]:
            name = "/".join(parts[4:])
            if self.command == "GET":
                self.fetched.append(f"{name}@{parts[3][0]}")
            self.answer((self.root / parts[3] / name).read_bytes(), parts[3])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if "someone" in parts else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def answer(self, content: object, commit: str = "") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if commit:
            self.send_header("ETag", f'"{hash(body):x}"')
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    Hub.root, Hub.fetched = tmp_path / "hub", []
    with serving(Hub) as address:
        yield address


def loaded(names: list[str], hub: str, folder: Path) -> dict[str, Any]:
    """What another process reads under each name, which a hub at `hub` may have: its encoder, or the complaint."""
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *names], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_hub_id_is_fetched_only_when_no_folder_has_that_name(hub: str, tmp_path: Path):
    for seed, commit in enumerate(COMMITS.values()):
        random_sae(6, 12, 3, seed).save_pretrained(Hub.root / commit / "mid")
        (Hub.root / commit / "mid" / "optimizer.bin").write_bytes(b"not wanted")
    random_sae(6, 12, 3, seed=2).save_pretrained(tmp_path / "owner" / "saes")
    names = ["someone/saes/mid", "someone/saes/mid@v2", "owner/saes", "someone/saes/mid@v3", "nobody/nothing"]
    found = loaded(names, hub, tmp_path)
    for seed, name in enumerate(names[:3]):
        torch.testing.assert_close(torch.tensor(found[name]), random_sae(6, 12, 3, seed).encoder.detach())
    files = ["mid/config.json", "mid/model.safetensors"]
    assert sorted(Hub.fetched) == sorted(f"{file}@{commit}" for file in files for commit in "ab")
    assert found["someone/saes/mid@v3"].startswith("There is no SAE folder someone/saes/mid@v3. The hub has the SAE")
    assert found["nobody/nothing"].startswith("There is no SAE folder nobody/nothing. The hub has no public model")


def test_a_hub_id_may_name_one_file(hub: str, tmp_path: Path):
    folder = Hub.root / COMMITS["main"] / "saes"
    models = {name: test_diffract.write(folder / name) for name in ("sae_img_6.pt", "sae_img_12.pt")}
    names = ["someone/saes/saes/sae_img_6.pt", "someone/saes/saes/sae_img_18.pt", "nobody/nothing/sae_img_6.pt"]
    found = loaded(names, hub, tmp_path)
    torch.testing.assert_close(torch.tensor(found[names[0]]), models["sae_img_6.pt"].encoder.weight.detach())
    assert Hub.fetched == ["saes/sae_img_6.pt@a"], "and nothing that lies beside it"
    assert found[names[1]].endswith("The copy of someone/saes on this machine has no file saes/sae_img_18.pt.")
    assert found[names[2]].startswith("There is no SAE nobody/nothing/sae_img_6.pt. The hub has no public model")


@pytest.mark.parametrize("name", ["dictionary_learning", "sae-lens", "prisma"])
def test_of_one_file_what_its_format_reads_beside_it_comes_too(hub: str, tmp_path: Path, name: str):
    write, weights = WRITERS[name]
    write(Hub.root / COMMITS["main"] / "trainer_0")
    (Hub.root / COMMITS["main"] / "trainer_0" / "notes.json").write_text("{}")
    found = loaded([f"someone/saes/trainer_0/{weights}"], hub, tmp_path)
    expected = load_pretrained(Hub.root / COMMITS["main"] / "trainer_0")[0].encoder
    assert found[f"someone/saes/trainer_0/{weights}"] == expected.tolist()
    assert f"trainer_0/{weights}@a" in Hub.fetched and len(Hub.fetched) == 2, "and nothing else"


def test_a_path_is_never_looked_for_in_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="There is no SAE folder someone/else"):
        load_pretrained(Path("someone/else"))


def test_a_folder_goes_and_comes_back(tmp_path: Path):
    sae = random_sae(6, 12, 3)
    sae.save_pretrained(tmp_path, {"metrics": {"l0": 3.0}}, torch.float16)
    again = SparseAutoencoder.from_pretrained(tmp_path, dtype=torch.float64)
    assert torch.equal(again.encoder, sae.encoder.half().double())
    assert load_pretrained(tmp_path)[1]["metrics"] == {"l0": 3.0}

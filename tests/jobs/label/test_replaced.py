"""A model or an autoencoder that is replaced while a run goes on: the next worker that loads it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from soak import descendants, name_of

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.executors.sources import Source, checking, require_unchanged, sources
from gazetteer.jobs.executors.task import Task
from gazetteer.jobs.operate.verify import verify
from tests.support.system import toy_work
from tests.support.system.running import FEW, ROOT

SITE = "mid_block.attentions.0-cond-t1.00"


def permuted(folder: Path) -> None:
    """Another autoencoder in its place, sound in itself: the same features under other numbers."""
    tensors = load((folder / "model.safetensors").read_bytes())
    order = torch.roll(torch.arange(tensors["encoder"].shape[0]), 7)
    for name in {"encoder", "decoder", "latent_bias"} & tensors.keys():
        tensors[name] = tensors[name][order].contiguous()
    content = save(tensors)
    config = json.loads((folder / "config.json").read_text())
    for name, body in (
        ("model.safetensors", content),
        ("config.json", json.dumps(config | {"sha256": hashlib.sha256(content).hexdigest()}).encode()),
    ):
        (folder / "new").write_bytes(body)
        os.replace(folder / "new", folder / name)


@pytest.mark.full
@pytest.mark.alone
def test_an_autoencoder_replaced_under_a_run_is_refused_and_put_back_the_run_resumes(tmp_path: Path) -> None:
    saes, run = tmp_path / "saes", tmp_path / "run"
    shutil.copytree(Path(load_config(None).saes) / SITE, saes / SITE)
    shutil.copytree(saes, tmp_path / "good")
    settings = [*FEW, f"saes={saes}", "executor=ray", "workers=1"]
    command = [sys.executable, "-m", "gazetteer", "label", "--out", str(run), "--set", *settings]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        while driver.poll() is None and not list(run.glob("_meta/commits/*.json")):
            time.sleep(0.02)
        permuted(saes / SITE)
        (worker,) = [pid for pid in descendants(driver.pid) if name_of(pid).startswith("ray::Actor")]
        os.kill(worker, signal.SIGKILL)
        said = driver.communicate(timeout=300)[1]
    assert driver.returncode == 2, said
    assert "saes on" in said.splitlines()[-1]
    assert "is not what this run was started with" in said.splitlines()[-1]
    shutil.rmtree(saes)
    shutil.copytree(tmp_path / "good", saes)
    assert main(["label", "--out", str(run), "--set", *settings, "executor=serial"]) == 0
    assert verify(run)["verdict"] == "sound"


def test_a_workers_files_are_those_that_its_stages_load(tmp_path: Path) -> None:
    config = load_config(None)
    found = {source.key: source for source in sources(config, fingerprint_of(config))}
    assert {key: found[key].stage for key in ("model.path", "saes", "detector.path", "segmenter.path")} == {
        "model.path": "generate",
        "saes": "generate",
        "detector.path": "detect",
        "segmenter.path": "segment",
    }
    assert not [key for key in found if key.startswith("prompts")], "which workers do not read"
    file = tmp_path / "weights"
    file.write_bytes(b"before")
    source = Source("detector.path", str(file), digest_path(str(file)))
    staged = Task(checking(toy_work.Staged, (source,)), toy_work.join, toy_work.lost, ("generate", "detect"))
    assert staged.worker(("generate",)).run([]) == []
    assert staged.worker().run([]) == []
    file.write_bytes(b"behind")  # as long, in the same place
    assert staged.worker(("generate",)).run([]) == [], "another worker's concern"
    with pytest.raises(InputError, match=r"detector\.path on .* is not what this run was started with"):
        staged.worker(("generate", "detect"))
    with pytest.raises(InputError):
        require_unchanged([source])

"""`gazetteer sae train` on a tiny pipeline: from disk and from a stream, to the same folders, measured and reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import jobs.sae_capture
import jobs.sae_recover
from data.errors import InputError, LockedError
from data.lock import hold
from jobs.cli import main
from jobs.config import load_config
from jobs.sae_train import train_site_saes
from sae.report import site_configs
from tests.tiny_pipeline import BLOCKS, tiny_pipeline

SETTINGS = [
    "executor=serial", "threads=1", "shard_size=8", "generation.steps=3", "generation.t=[1.0, 0.0]",
    "generation.branches=[cond, uncond]", "sae.images=40", "sae.recover=2", "sae.buffer=128",
    "sae.train={k: 3, n: 48, lr: 0.003, batch_size: 64, checkpoint_every: 2, log_every: 2}",
]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    (folder / "prompts.txt").write_text("\n".join(["a red house", "two boats on the sea", "a dog at night"]))
    here = [f"model.path={folder}", f"sae.prompts.path={folder / 'prompts.txt'}"]
    return [*SETTINGS, *here, f"generation.blocks=[{', '.join(BLOCKS)}]"]


def no_model(*_: object) -> None:
    raise AssertionError("a finished run loaded a model")


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_one_command_trains_measures_and_reports_every_site(
    tmp_path: Path, settings: list[str], mode: list[str], capsys, monkeypatch: pytest.MonkeyPatch
):
    command = ["sae", "train", "--out", str(tmp_path), "--json", *mode, "--set", *settings]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(result["sites"]) == 8
    assert (tmp_path / "activations").exists() != bool(mode)
    assert not list((tmp_path / "saes").glob("_stream*"))
    table = pd.read_parquet(tmp_path / "saes" / "metrics.parquet")
    # 38 or so pictures of 16 cells: 9 batches of 64; two pictures at least are held out.
    assert set(table.steps) <= {8, 9}
    assert (table.vectors >= 16).all()
    assert (table.noise_pictures >= 1).all()
    assert table[["noise_error", "noise_error_sae", "noise_error_zero", "noise_error_mean"]].gt(0).all(axis=None)
    assert len(pd.read_parquet(tmp_path / "saes" / "history.parquet")) >= 8 * 4
    assert "loss recovered" in (tmp_path / "saes" / "index.html").read_text()

    monkeypatch.setattr(jobs.sae_capture, "load_pipeline", no_model)
    monkeypatch.setattr(jobs.sae_recover, "load_pipeline", no_model)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result

    assert main(["sae", "report", "--saes", str(tmp_path / "saes"), "--out", str(tmp_path / "page"), "--json"]) == 0
    out = capsys.readouterr().out
    row = result["sites"][0]
    assert f"{row['scaled_mse']:.4f} / {100 * row['explained_variance']:.1f}" in out
    assert "| branch | block | t = 1.00 | t = 0.00 |" in out
    assert len(json.loads(out.splitlines()[-1])["sites"]) == 8
    assert (tmp_path / "page" / "index.html").exists()


def test_a_stream_that_was_stopped_goes_on(tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch):
    wanted = [*settings, "sae.stream=true", "sae.recover=0"]
    config = load_config(None, wanted)
    train_site_saes(config, tmp_path / "whole")
    worker = jobs.sae_capture.CaptureWorker
    seen: list[int] = []

    def run(self, items):
        seen.append(len(items))
        if sum(seen) > 20:
            raise KeyboardInterrupt
        return original(self, items)

    original = worker.run
    monkeypatch.setattr(worker, "run", run)
    with pytest.raises(KeyboardInterrupt):
        train_site_saes(config, tmp_path / "stopped")
    monkeypatch.setattr(worker, "run", original)
    train_site_saes(load_config(None, [*wanted, "shard_size=5"]), tmp_path / "stopped")
    for site in site_configs(tmp_path / "whole" / "saes"):
        files = [tmp_path / name / "saes" / site.slug / "model.safetensors" for name in ("whole", "stopped")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_two_at_once_are_kept_apart(tmp_path: Path, settings: list[str]):
    lock = hold(tmp_path / ".lock")
    with pytest.raises(LockedError, match="Another process is training"):
        train_site_saes(load_config(None, settings), tmp_path)
    lock.release()


def test_tensorboard_is_an_extra(tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch):
    config = load_config(None, [*settings, "sae.tensorboard=true", "sae.recover=0", "generation.t=[1.0]"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'gazetteer\[tensorboard\]'"):
        train_site_saes(config, tmp_path)
    monkeypatch.undo()
    train_site_saes(config, tmp_path)
    for site, stated in site_configs(tmp_path / "saes").items():
        curves = EventAccumulator(str(tmp_path / "tensorboard" / site.slug)).Reload()
        for name in ("loss", "mse", "auxk", "dead", "lr"):
            history = stated["training"]["outcome"]["history"]
            points = [(point.step, point.value) for point in curves.Scalars(name)]
            assert points == [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in history]

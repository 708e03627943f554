"""What docs/sae.md tells people to type works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.schema import DEFAULT_CONFIG
from gazetteer.sae.report.report import site_configs, table_one, write_report
from tests.support.runs.sae_runs import tiny_config
from tests.support.system.running import ROOT

TEXT = (ROOT / "docs/sae.md").read_text(encoding="utf-8")
MODELS = "data/scenes/models/saes"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    assert found
    return found


def commands(program: str) -> list[list[str]]:
    """Every line of a block and every span of text that starts with the program."""
    spans = re.findall(rf"`({program} [^`]*)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line, comments=True) for line in [*lines, *spans]]


def test_its_python_runs(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, on the vectors they speak of: 1280 channels, and one batch of them."""
    monkeypatch.chdir(tmp_path)
    x = torch.randn(4352, 1280, generator=torch.Generator().manual_seed(0))
    names = {"vectors": x[:4096], "heldout": x[4096:]}
    for block in blocks("python"):
        exec(compile(block, "docs/sae.md", "exec"), names)
    assert "explained_variance" in capsys.readouterr().out
    assert names["codes"].values.shape == (4096, 10)


def test_its_gazetteer_commands_run(tmp_path: Path) -> None:
    config: dict = yaml.safe_load(DEFAULT_CONFIG.read_text())
    tiny = tiny_config(tmp_path / "model")
    tiny["generation"] |= {"t": [1.0], "branches": ["cond"]}
    for key, value in tiny.items():
        config[key] = {**config[key], **value} if isinstance(config.get(key), dict) else value
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    said = [words for words in commands("gazetteer") if "--out" in words]
    assert [words[1:3] for words in said] == [["sae", "train"], ["sae", "train"], ["sae", "report"]]
    for number, words in enumerate(said):
        work, report = tmp_path / f"work{number}", tmp_path / "report"
        places = {"my.yaml": tmp_path / "my.yaml", "work": work, "build/report": report, MODELS: ROOT / MODELS}
        here = [str(places.get(word, word)) for word in words[1:]]
        assert main(here) == 0, words
    assert (tmp_path / "work0" / "activations").exists()
    assert not (tmp_path / "work1" / "activations").exists()
    for folder in (tmp_path / "work0" / "saes", tmp_path / "work1" / "saes", tmp_path / "report"):
        assert {"metrics.parquet", "history.parquet", "index.html"} <= {path.name for path in folder.iterdir()}


def test_its_table_of_the_embedded_autoencoders_is_what_they_say(tmp_path: Path) -> None:
    assert table_one(write_report(ROOT / MODELS, tmp_path)) in TEXT
    for site, config in site_configs(ROOT / MODELS).items():
        metrics = config["metrics"]
        if metrics["loss_recovered"] is None:
            continue
        shares = f"{metrics['loss_recovered']:.2f} / {metrics['loss_recovered_mean']:.2f}"
        harm = metrics["noise_error_zero"] - metrics["noise_error"]
        assert f"{shares} of {harm:.5f}" in TEXT, site


def test_its_benchmark_measures_every_key(tmp_path: Path) -> None:
    """Of our own trainers and at a small size: the public ones come from a package index, and take minutes."""
    (words,) = [words for words in commands("python") if words[1] == "benchmarks/sae/step.py"]
    sizes = ["--d", "32", "--n", "128", "--k", "4", "--batch", "256", "--dead", "40", "--threads", "1"]
    mine = ["floor", "gazetteer", "gazetteer-plain"]
    words = [{"3": "1", "300": "3"}.get(word, word) for word in words[1:]]
    done = subprocess.run(
        [sys.executable, *words, *sizes, "--only", *mine], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for key in ("step", "step_auxk", "peak_gb", "encode_rate"):
        assert set(result[key]) == set(mine)
        assert all(value > 0 for value in result[key].values())
    assert {name: len(values) for name, values in result["recovery"].items()} == dict.fromkeys(mine[1:], 3)
    assert result["not_run"] == {}


@pytest.mark.full
def test_its_other_benchmark_reads_what_the_packages_write() -> None:
    (words,) = [words for words in commands("python") if words[1] == "benchmarks/sae/layouts.py"]
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["not_run"] == {}
    assert len(result["layouts"]) == 5
    for name, row in result["layouts"].items():
        assert row["max_difference"] < 1e-5 * row["scale"], name


def test_every_file_it_names_exists() -> None:
    for name in re.findall(r"`((?:sae|data|jobs|diffusion|benchmarks|tests)/[\w/]+\.\w+)`", TEXT):
        assert (ROOT / name).exists(), name

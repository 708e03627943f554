"""What the page on the autoencoders' results says was measured is what their files say, and its benchmarks work."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.sae.formats import WRITERS
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.schema import DEFAULT_CONFIG
from gazetteer.sae.report.report import site_configs, table_one, write_report
from tests.support.runs.sae_runs import tiny_config
from tests.support.system.running import ROOT

TEXT = (ROOT / "docs/results/autoencoders.md").read_text(encoding="utf-8")
MODELS = "data/scenes/models/saes"


def benchmark(module: str) -> list[str]:
    """The arguments of the page's command that runs a benchmark."""
    (line,) = {line for line in TEXT.replace("`", "\n").splitlines() if line.startswith(f"python -m {module} ")}
    return shlex.split(line)[1:]


@pytest.mark.parametrize("stream", [False, True])
def test_training_writes_what_it_is_said_to(tmp_path: Path, stream: bool) -> None:
    config: dict = yaml.safe_load(DEFAULT_CONFIG.read_text())
    tiny = tiny_config(tmp_path / "model")
    tiny["generation"] |= {"t": [1.0], "branches": ["cond"]}
    for key, value in tiny.items():
        config[key] = {**config[key], **value} if isinstance(config.get(key), dict) else value
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    work = tmp_path / "work"
    words = ["sae", "train", "--config", str(tmp_path / "my.yaml"), "--out", str(work), *["--stream"] * stream]
    assert main(words) == 0
    assert (work / "activations").exists() is not stream
    assert {"metrics.parquet", "history.parquet", "index.html"} <= {path.name for path in (work / "saes").iterdir()}


def test_its_table_of_the_embedded_autoencoders_is_what_they_say(tmp_path: Path) -> None:
    headings, rows = table_one(write_report(ROOT / MODELS, tmp_path))
    page = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    assert "\n".join([page[0], "|" + "---|" * len(headings), *page[1:]]) in TEXT
    for site, config in site_configs(ROOT / MODELS).items():
        metrics = config["metrics"]
        if metrics["loss_recovered"] is None:
            continue
        fractions = f"{metrics['loss_recovered']:.2f} / {metrics['loss_recovered_mean']:.2f}"
        harm = metrics["noise_error_zero"] - metrics["noise_error"]
        assert f"{fractions} of {harm:.5f}" in TEXT, site


def test_its_benchmark_measures_every_key() -> None:
    """Of our own trainers and at a small size: the public ones come from a package index, and take minutes."""
    sizes = ["--d", "32", "--n", "128", "--k", "4", "--batch", "256", "--dead", "40", "--threads", "1"]
    mine = ["floor", "gazetteer", "gazetteer-plain"]
    words = [{"3": "1", "300": "3"}.get(word, word) for word in benchmark("benchmarks.sae.step")]
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


def test_the_page_counts_what_the_packages_write() -> None:
    said = (ROOT / "docs" / "reference" / "autoencoders.md").read_text()
    assert f"Checked: {sum(map(len, WRITERS.values()))} autoencoders that four packages wrote themselves" in said


@pytest.mark.full
def test_its_other_benchmark_reads_what_the_packages_write() -> None:
    words = benchmark("benchmarks.sae.formats")
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["not_run"] == {}
    assert len(result["layouts"]) == sum(map(len, WRITERS.values()))
    for name, row in result["layouts"].items():
        assert row["max_difference"] < 1e-5 * row["scale"], name

"""The wheel holds what the repository holds, is built without a warning, and works where nothing else of it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.system.running import ROOT

PACKAGES = ("attribution", "data", "diffusion", "jobs", "labeling", "sae")
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def sources() -> set[str]:
    """Every file of the packages, code and data, by its place in the repository."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_embedded_models_are_small() -> None:
    files = [path for path in (ROOT / "data/scenes/models").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert sum(path.stat().st_size for path in files) <= 30e6


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of a wheel that was built from a copy of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "setup.cfg", "pyproject.toml"):
        shutil.copyfile(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", BUILD, str(folder)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_it_holds_every_file_of_the_packages_and_nothing_else(installed: Path) -> None:
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {name for name in files if ".dist-info/" not in name} == sources()
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "gazetteer = gazetteer.jobs.cli.main:main" in entry_points.read_text()


def test_its_command_runs_on_its_own_models(installed: Path, tmp_path: Path) -> None:
    saes = installed / "data" / "scenes" / "models" / "saes"
    command = [
        sys.executable,
        "-m",
        "gazetteer",
        "sae",
        "report",
        "--saes",
        str(saes),
        "--out",
        str(tmp_path),
        "--json",
    ]
    done = subprocess.run(
        command, cwd="/", env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["sites"]) == 18

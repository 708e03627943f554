"""The wheel holds what ships under one name, is built without a warning, and works where nothing else of it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import gazetteer
from tests.support.system.imports import LAYERS
from tests.support.system.running import FEW, ROOT

BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
IGNORED = shutil.ignore_patterns("__pycache__")
HOSTILE = "raise RuntimeError(f'{__name__} of the working directory was imported')\n"


REPOSITORY_ALONE = ("text_to_image_dit", "saes_dit")
"""Models of the embedded world that no package holds, but for the note that says where they are."""


def is_packaged(path: Path) -> bool:
    """Whether a file of the repository ships in the wheel."""
    return path.name == "ABSENT.txt" or not set(REPOSITORY_ALONE) & set(path.parts)


def sources() -> set[str]:
    """Every file that ships, code and data, by its place in the wheel."""
    shipped = {"gazetteer/" + path.name for path in (ROOT / "gazetteer").iterdir() if path.is_file()}
    for layer in LAYERS[:-1]:
        files = (path for path in (ROOT / layer).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        named = {path.relative_to(ROOT) for path in files}
        shipped |= {"gazetteer/" + path.as_posix() for path in named if is_packaged(path)}
    return shipped


def test_the_embedded_models_are_small() -> None:
    files = [path for path in (ROOT / "data/scenes/models").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert sum(path.stat().st_size for path in files if is_packaged(path)) <= 45e6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder that holds a wheel's contents, built from a copy of the repository, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for top in (*LAYERS, "benchmarks", "tests"):
        shutil.copytree(ROOT / top, source / top, ignore=IGNORED, symlinks=True)
    for file in ("README.md", "LICENSE", "setup.cfg", "pyproject.toml"):
        shutil.copyfile(ROOT / file, source / file)
    for name in ("text_to_image_dit/model_index.json", "text_to_image_dit/vae/weights", "saes_dit/site/weights"):
        file = source / "data/scenes/models" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("of the repository alone")
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", BUILD, str(folder)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr
    shutil.rmtree(source)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def python(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with that site-packages folder; the libraries come from this interpreter's.

    A folder that a .pth file names is searched, but its own .pth files are not read: an editable installation of the
    repository among the libraries stays unseen.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    packages.rmdir()
    packages.symlink_to(site)
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "libraries.pth").write_text("".join(f"{path}\n" for path in sorted(libraries)))
    return environment / "bin" / "python"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory of a user whose own files have the names of our layers."""
    for layer in LAYERS[:-1]:
        (tmp_path / f"{layer}.py").write_text(HOSTILE)
    (tmp_path / "jobs.py").unlink()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text(HOSTILE)
    return tmp_path


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The environment's interpreter with these arguments in this folder, and no way back to the repository."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    variables |= {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def test_it_holds_every_file_that_ships_under_one_name_and_nothing_else(site: Path) -> None:
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {name for name in files if "/" in name and ".dist-info/" not in name} == sources()
    about = f"gazetteer-{gazetteer.__version__}.dist-info"
    assert {path.name for path in site.iterdir()} - {"libraries.pth"} == {"gazetteer", about}
    assert (site / about / "top_level.txt").read_text().split() == ["gazetteer"]
    assert "gazetteer = gazetteer.jobs.cli.main:main" in (site / about / "entry_points.txt").read_text()


def test_models_of_the_repository_alone_are_refused_with_where_they_are(python: Path, elsewhere: Path) -> None:
    done = run(python, elsewhere, "-m", "gazetteer", "label", "--config", "scenes-dit", "--out", "run")
    assert done.returncode == 2 and "text_to_image_dit is not there: the weights are not" in done.stderr


def test_the_environment_sees_the_wheel_and_no_checkout(python: Path, elsewhere: Path, site: Path) -> None:
    done = run(python, elsewhere, "-c", "import gazetteer, importlib.util as u; print(gazetteer.__file__)")
    assert Path(done.stdout.strip()).resolve() == (site / "gazetteer" / "__init__.py").resolve(), done.stderr
    for name in ("benchmarks", "tests"):
        assert run(python, elsewhere, "-c", f"import {name}").returncode == 1
    assert "of the working directory" in run(python, elsewhere, "-c", "import sae").stderr


def readme_python() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.alone)])
def test_it_labels_among_files_of_our_names_and_the_readme_reads_it(
    python: Path, elsewhere: Path, executor: str
) -> None:
    settings = [*FEW, "images=6", "generation.t=[0.5]", f"executor={executor}", "workers=1"]
    done = run(python, elsewhere, "-m", "gazetteer", "label", "--out", "runs/scenes", "--set", *settings)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(elsewhere / "runs/scenes/images").num_rows == 6
    if executor == "serial":
        assert len(readme_python()) >= 5
        for block in readme_python():
            read = run(python, elsewhere, "-c", block)
            assert read.returncode == 0, f"{block}\n{read.stderr}"
            assert read.stdout.strip()


def test_its_command_runs_on_its_own_models(python: Path, elsewhere: Path, site: Path) -> None:
    saes = site / "gazetteer" / "data" / "scenes" / "models" / "saes"
    done = run(python, elsewhere, "-m", "gazetteer", "sae", "report", "--saes", str(saes), "--out", "report", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["sites"]) == 24

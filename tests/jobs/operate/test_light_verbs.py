"""Verbs that ask files alone load none of the libraries that models need: a second and a gigabyte saved each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs.runs import finished_run
from tests.support.system.running import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "run"
    finished_run(folder)
    return folder


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_no_model_library_is_loaded(run: Path, verb: str) -> None:
    script = (
        "import sys\nfrom gazetteer.jobs.cli.main import main\n"
        f"code = main([{verb!r}, {str(run)!r}, '--json'])\n"
        "heavy = {'ray', 'torch', 'diffusers', 'transformers', 'skimage', 'matplotlib', 'scipy'}\n"
        "heavy &= set(sys.modules)\n"
        "assert code in (0, 1, 3) and not heavy, (code, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_way_to_a_finished_run_loads_none_either() -> None:
    script = (
        "import sys\nimport gazetteer.jobs.label.job, gazetteer.jobs.label.summary, gazetteer.jobs.config.schema\n"
        "heavy = {'ray', 'torch', 'diffusers', 'transformers', 'skimage', 'matplotlib', 'scipy', 'pandas'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

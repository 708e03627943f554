"""One place sets the number of threads; a run is bound to it, for its tables differ with it in their last bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.threads import thread_environment
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import fingerprint_of
from gazetteer.jobs.config.schema import load_config
from tests.support.runs.runs import PROVENANCE, parts
from tests.support.system.imports import python_files
from tests.support.system.running import ROOT


def test_torch_computes_with_as_many_as_are_asked_for() -> None:
    script = (
        "import torch\nfrom gazetteer.data.core.threads import use_threads\n"
        "use_threads(3); print(torch.get_num_threads())\nuse_threads(0); print(torch.get_num_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3"]
    assert thread_environment(2) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert thread_environment(0) == {}


def test_no_other_place_sets_them() -> None:
    setters = [
        str(path.relative_to(ROOT))
        for top in ("data", "sae", "diffusion", "labeling", "attribution", "jobs")
        for path in python_files(top)
        if "set_num_threads(" in path.read_text(encoding="utf-8")
    ]
    assert setters == ["data/core/threads.py"]


def test_a_run_is_not_resumed_with_another_number(tmp_path: Path) -> None:
    one, two = (fingerprint_of(load_config(None, [f"threads={n}"])) for n in (1, 2))
    run = RunFolder(tmp_path / "run").open_or_create(one)
    RunFolder(tmp_path / "run").open_or_create(two)  # nothing is committed yet
    run = RunFolder(tmp_path / "run").open_or_create(one)
    run.commit_shard("s0", parts(0), {"images": 1}, {**PROVENANCE, "fingerprint": one})
    with pytest.raises(InputError, match="threads: was absent, now 2"):
        RunFolder(tmp_path / "run").open_or_create(two)

"""The benchmarks measure the checkout they lie in and answer in JSON where they are asked to."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PACKAGES = ("attribution", "data", "diffusion", "jobs", "labeling", "sae")
# sae_step.py and sae_layouts.py start others that do the work.
DIRECT = sorted({path.name for path in BENCHMARKS.glob("*.py")} - {"_checkout.py", "sae_step.py", "sae_layouts.py"})


@pytest.mark.parametrize("name", DIRECT)
def test_a_benchmark_measures_the_checkout_it_lies_in(tmp_path: Path, name: str):
    # A checkout whose packages say who they are and stop: an installed project of the same names must not be used.
    shutil.copytree(BENCHMARKS, tmp_path / "benchmarks")
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('of this checkout')")
    # The same for torch, which takes seconds to load: where packages come from is all that is asked.
    (tmp_path / "torch.py").write_text("raise SystemExit('of this checkout')")
    command = [sys.executable, str(tmp_path / "benchmarks" / name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert "of this checkout" in done.stderr, done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in BENCHMARKS.glob("[!_]*.py")))
def test_a_benchmark_takes_json(name: str):
    calls = [node for node in ast.walk(ast.parse((BENCHMARKS / name).read_text())) if isinstance(node, ast.Call)]
    options = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith(".add_argument")]
    assert "'--json'" in options

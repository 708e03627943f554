"""The benchmarks measure the checkout they lie in and answer in JSON where they are asked to."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DIRECT = sorted({path.name for path in BENCHMARKS.glob("[!_]*.py")})
MODULES = sorted(path for folder in ("attribution", "sae") for path in (BENCHMARKS / folder).glob("[!_]*.py"))


@pytest.mark.parametrize("name", DIRECT)
def test_a_benchmark_measures_the_checkout_it_lies_in(tmp_path: Path, name: str):
    # A checkout whose packages say who they are and stop: an installed project of the same names must not be used.
    shutil.copytree(BENCHMARKS, tmp_path / "benchmarks")
    (tmp_path / "gazetteer").mkdir()
    (tmp_path / "gazetteer" / "__init__.py").write_text("raise SystemExit('of this checkout')")
    # The same for torch, which takes seconds to load: where packages come from is all that is asked.
    (tmp_path / "torch.py").write_text("raise SystemExit('of this checkout')")
    command = [sys.executable, str(tmp_path / "benchmarks" / name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert "of this checkout" in done.stderr, done.stderr


@pytest.mark.parametrize("path", [*map(BENCHMARKS.joinpath, DIRECT), *MODULES], ids=lambda path: path.stem)
def test_a_benchmark_takes_json(path: Path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    options = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith(".add_argument")]
    assert "'--json'" in options

"""The layers of docs/architecture.md hold: imports point down, Ray stays in jobs/, the command starts fast."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ["data", "sae", "diffusion", "labeling", "attribution", "jobs"]  # lowest first
# Programs that train the embedded models with model libraries, or judge them with the project's own tools; nothing
# imports them, and Ray is for neither.
TRAINING, JUDGING = "benchmarks/scenes/", "benchmarks/scenes/evaluate.py"
FORBIDDEN_BELOW = {"data": {"diffusers", "transformers"}, "sae": {"diffusers", "transformers"}}


def python_files() -> list[Path]:
    return [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def is_program(path: Path, *programs: str) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(programs or (TRAINING, JUDGING))


def test_there_are_files_in_every_layer() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in python_files()} == set(LAYERS)
    assert all((ROOT / program).exists() for program in (TRAINING, JUDGING))


def test_imports_point_down() -> None:
    wrong = []
    for path in python_files():
        layer = LAYERS.index(path.relative_to(ROOT).parts[0])
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("gazetteer.")}
        wrong += [
            f"{path.relative_to(ROOT)} imports {top}"
            for top in sorted(rooms & set(LAYERS))
            if LAYERS.index(top) > layer and not is_program(path, JUDGING)
        ]
    assert wrong == []


def test_libraries_stay_in_their_layers() -> None:
    wrong = []
    for path in python_files():
        layer = path.relative_to(ROOT).parts[0]
        tops = {name.split(".")[0] for name in imports(path)}
        forbidden = set() if is_program(path, TRAINING) else FORBIDDEN_BELOW.get(layer, set())
        forbidden = forbidden | ({"ray"} if layer != "jobs" else set())
        wrong += [f"{path.relative_to(ROOT)} imports {top}" for top in sorted(tops & forbidden)]
    assert wrong == []


def test_nothing_knows_the_scenes_world_but_itself() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if "data/scenes" not in path.as_posix()
        and any(name.startswith("gazetteer.data.scenes") for name in imports(path))
    ]
    assert wrong == []


def test_nothing_imports_a_program() -> None:
    programs = {"benchmarks.scenes", "benchmarks.scenes.evaluate"}
    wrong = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if not is_program(path) and any(name.startswith(tuple(programs)) for name in imports(path))
    ]
    assert wrong == []


def test_help_imports_no_heavy_library_and_answers_within_a_second() -> None:
    script = (
        "import sys\n"
        "from gazetteer.jobs.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'ray', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert "label" in done.stdout
    # CPU seconds: the promise is about the program, not about what else the machine is doing.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0

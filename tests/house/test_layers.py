"""The house stands as docs/architecture.md draws it: arrows fall, rooms are small, libraries stay in their rooms."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.system.imports import LAYERS, UNSHIPPED, arrows, circles, file_of, imports, name, python_files
from tests.support.system.running import ROOT

ROOMS = {
    "data": ("core", "tables", "storage", "runs", "inputs", "scenes"),
    "sae": ("formats", "model", "kernels", "training", "report"),
    "diffusion": (),
    "labeling": (
        "vocabulary", "questions", "tables", "weights", "detect", "segment", "evidence", "rules", "pipeline", "quality",
        "layout", "interventions", "atlas", "export",
    ),
    "attribution": ("objective", "scores", "edits", "attacks", "features", "faithfulness", "evaluation", "protocols"),
    "jobs": ("config", "executors", "plots", "label", "sae", "operate", "publish", "experiments", "explore", "cli"),
    "gazetteer": (),
}  # fmt: skip
"""The rooms of a layer, lowest first: a room imports only from those before it. A folder within a room belongs to it, a
file at the top of a layer is a room by its own name, and a layer without rooms is one."""

LIBRARIES = {
    "ray": {"jobs/executors/ray"},
    "diffusers": {"diffusion"},
    "transformers": {
        "diffusion", "labeling/weights", "labeling/detect", "labeling/segment", "labeling/pipeline",
        "attribution/protocols",
    },
    "groundingdino": {"labeling/detect"},
    "segment_anything": {"labeling/segment"},
}  # fmt: skip
"""Who may name a library that runs models or a cluster."""

MOST_FILES = 15
MOST_LINES, MOST_UNSHIPPED = 300, 350
"""Of a file that ships, and of a test, a benchmark or a program of the docs."""
MOST_OF_A_FUNCTION = 60
UNSAYING = {"one", "found", "mine", "some", "there"}
"""Names of variables that do not say what they hold; nor does one that ends in an underscore to be another's twin."""


def layer_of(file: str) -> str:
    return file.split("/")[0]


def room_of(file: str) -> str:
    layer, *steps = file.removesuffix(".py").split("/")
    return f"{layer}/{steps[0]}" if ROOMS[layer] and steps[0] != "__init__" else layer


def test_every_room_is_declared_and_exists() -> None:
    there = {room_of(name(path)) for path in python_files()}
    declared = {f"{layer}/{room}" for layer, rooms in ROOMS.items() for room in rooms}
    assert there - set(LAYERS) == declared


def test_imports_point_down() -> None:
    height = {room: (i, j) for i, layer in enumerate(LAYERS) for j, room in enumerate(places(layer))}
    wrong = [
        f"{file} imports {target}, from above"
        for file, targets in arrows().items()
        for target in sorted(targets)
        if layer_of(target) in LAYERS and height[room_of(target)] > height[room_of(file)]
    ]
    assert wrong == []


def places(layer: str) -> list[str]:
    """A layer and its rooms, lowest first; its own ``__init__`` may speak of every room."""
    return [*(f"{layer}/{room}" for room in ROOMS[layer]), layer]


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(arrows(*LAYERS, "benchmarks", "tests", typing=False)) == []


def test_a_circle_is_found_and_a_ladder_is_none() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [{"b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_folder_holds_more_code_than_a_reader_can_look_over() -> None:
    folders = [ROOT / top for top in (*LAYERS, *UNSHIPPED) if (ROOT / top).is_dir() and top != "gazetteer"]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".js")]
    counted = Counter(name(path.parent) for path in files if path.name != "__init__.py")
    assert {folder: count for folder, count in counted.items() if count > MOST_FILES} == {}


def test_files_and_functions_are_short_enough_to_read_at_once() -> None:
    wrong = []
    for path in python_files(*LAYERS, *UNSHIPPED):
        text = path.read_text(encoding="utf-8")
        most = MOST_UNSHIPPED if layer_of(name(path)) in UNSHIPPED else MOST_LINES
        if (lines := len(text.splitlines())) > most:
            wrong.append(f"{name(path)} has {lines} lines, more than {most}: part it")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_OF_A_FUNCTION:
                    wrong.append(f"{name(path)}:{node.lineno} {node.name} has {lines} lines: part it")
    assert wrong == []


def test_variables_are_named_after_what_they_hold() -> None:
    wrong = [
        f"{name(path)}:{line} calls a variable {word!r}: name what it holds"
        for path in python_files(*LAYERS, "benchmarks", "docs")
        for line, word in variables(ast.parse(path.read_text(encoding="utf-8")))
        if word in UNSAYING or re.fullmatch(r"[a-z]\w*_", word)
    ]
    assert wrong == []


def variables(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable and argument; fields of data classes are none."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    declared = {field.target for body in bodies for field in body if isinstance(field, ast.AnnAssign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in declared:
            yield node.lineno, node.id


def test_no_two_classes_that_ship_share_a_name() -> None:
    classes: dict[str, list[str]] = {}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(name(path))
    assert {known: files for known, files in classes.items() if len(files) > 1} == {}


def test_no_test_skips_itself() -> None:
    """What a machine lacks is left out by name (`tests/conftest.py`) or fails; nobody reads a list of skips."""
    skips = re.compile(r"importorskip\(|mark\.skip|pytest\.skip\(|xfail\(|mark\.xfail")
    files = [path for path in python_files("tests") if path != Path(__file__)]
    assert [name(path) for path in files if skips.search(path.read_text(encoding="utf-8"))] == []


def test_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for path in python_files():
        for found in imports(path):
            library = found.module.split(".")[0]
            rooms = tuple(end for room in LIBRARIES.get(library, ()) for end in (f"{room}/", f"{room}.py"))
            if rooms and not name(path).startswith(rooms):
                wrong.append(f"{name(path)}:{found.line} names {found.module}")
    assert wrong == []


def test_every_place_of_a_library_is_needed() -> None:
    used = {
        (found.module.split(".")[0], room)
        for path in python_files()
        for room in (room_of(name(path)), path.parent.relative_to(ROOT).as_posix())
        for found in imports(path)
    }  # fmt: skip
    assert {(library, room) for library, rooms in LIBRARIES.items() for room in rooms} - used == set()


def test_nothing_knows_the_scenes_world_but_itself() -> None:
    wrong = [
        f"{file} imports {target}"
        for file, targets in arrows().items()
        for target in sorted(targets)
        if target.startswith("data/scenes/") and not file.startswith("data/scenes/")
    ]
    assert wrong == []


def test_what_ships_needs_nothing_that_does_not() -> None:
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in python_files()
        for found in imports(path)
        if not found.text and found.module.split(".")[0] in UNSHIPPED
    ]
    assert wrong == []


@pytest.mark.parametrize("top", [*LAYERS, *UNSHIPPED])
def test_the_one_name_is_gazetteer(top: str) -> None:
    """From the repository's root `import data` would work, and from nowhere else."""
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in python_files(top)
        for found in imports(path)
        if not found.text and found.module.split(".")[0] in LAYERS and found.module.split(".")[0] != "gazetteer"
    ]
    assert wrong == []


@pytest.mark.parametrize("top", [*LAYERS, *UNSHIPPED])
def test_every_import_of_ours_finds_its_file(top: str) -> None:
    """An import within a function breaks only when it runs: here it is looked up."""
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in python_files(top)
        for found in imports(path)
        if not found.text and found.module.startswith("gazetteer.") and file_of(found.module) is None
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


def test_a_slip_in_the_configuration_is_said_before_any_model_library_is_loaded() -> None:
    script = (
        "import sys\n"
        "from gazetteer.jobs.cli.main import main\n"
        "code = main(['label', '--out', '/nonexistent/run', '--set', 'imgaes=3'])\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'ray', 'skimage'} & set(sys.modules)\n"
        "assert code == 2 and not heavy, (code, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "did you mean images?" in done.stderr


def test_the_files_of_every_layer_are_seen() -> None:
    assert {layer_of(name(path)) for path in python_files()} == set(LAYERS)
    assert Path(ROOT / "data/core/sites.py") in python_files("data")

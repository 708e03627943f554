"""`import gazetteer` is the whole public surface: every name is there, known to type checkers, and free until used."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import subprocess
import sys

import pytest
import yaml

import gazetteer
from tests.support.system.imports import imports, name, python_files
from tests.support.system.running import ROOT

FACE = ROOT / "gazetteer" / "__init__.py"


def typed() -> dict[str, str]:
    """The names that type checkers see, each with its module: `from module import name as name`."""
    found = {}
    for node in ast.walk(ast.parse(FACE.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gazetteer."):
            for alias in node.names:
                assert alias.asname == alias.name, f"{alias.name}: only `import x as x` is a re-export"
                found[alias.name] = node.module
    return found


def test_type_checkers_see_what_is_there() -> None:
    assert typed() == gazetteer._WHERE
    assert gazetteer.__all__ == sorted(typed())


@pytest.mark.parametrize("exported", gazetteer.__all__)
def test_every_name_can_be_imported_and_is_documented(exported: str) -> None:
    value = getattr(gazetteer, exported)
    assert value is getattr(importlib.import_module(gazetteer._WHERE[exported]), exported)
    assert (value.__doc__ or "").strip()
    assert exported in dir(gazetteer)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_label'"):
        gazetteer.load_label  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_loads_no_library() -> None:
    """Nothing but the package itself and modules of the standard library that it names."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "import gazetteer\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["gazetteer"]


def test_there_is_one_version() -> None:
    """Written in gazetteer/__init__.py, read by setup.cfg, printed by the command; whoever repeats it says the same."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: gazetteer.__version__"
    command = [sys.executable, "-m", "gazetteer", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"gazetteer {gazetteer.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", gazetteer.__version__)
    last = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert last and last[1] == gazetteer.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == gazetteer.__version__
    launching = [path.read_text() for path in (ROOT / "jobs/operate/launch").rglob("*") if path.is_file()]
    tags = {tag for text in launching for tag in re.findall(r"gazetteer:(\d[\w.]*\d)", text)}
    assert tags == {gazetteer.__version__}


def test_rooms_import_from_where_a_thing_stands() -> None:
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for path in python_files()
        for found in imports(path)
        if not found.text and found.module.removeprefix("gazetteer.") in gazetteer.__all__
    ]
    assert wrong == []

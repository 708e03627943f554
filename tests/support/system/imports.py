"""Who imports whom: the repository's files of Python, read without running any.

An import counts wherever it stands, at the top or inside a function, and so does the dotted name of a module in a
string (`import_module("gazetteer.diffusion.blocks")`, `"gazetteer.labeling.vocabulary.glove:vector"`). What stands
under `if TYPE_CHECKING:` is marked: it makes no circle, since it never runs, but it is knowledge: it may not point up.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LAYERS = ("data", "sae", "diffusion", "labeling", "attribution", "jobs", "gazetteer")
"""What ships, lowest first: an arrow may only point down."""
UNSHIPPED = ("benchmarks", "tests", "docs")
MODULE_IN_TEXT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:\w+)?")


@dataclass(frozen=True)
class Import:
    """One module that a file names: `gazetteer.data.core.sites`, `torch.nn`; `typing` for one under TYPE_CHECKING."""

    module: str
    line: int
    typing: bool = False
    text: bool = False
    """Named in a string, so that it may be no import at all."""


def python_files(*tops: str) -> list[Path]:
    """The files of these folders (by default of all layers), each once: not again through the links in gazetteer/."""
    found = []
    for top in tops or LAYERS:
        pattern = "*.py" if top == "gazetteer" else "**/*.py"
        found += [path for path in sorted((ROOT / top).glob(pattern)) if "__pycache__" not in path.parts]
    return found


def name(path: Path) -> str:
    """A file's place in the repository, with slashes."""
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every module that a file names."""
    return tuple(_found(ast.parse(path.read_text(encoding="utf-8")), typing=False))


def _found(node: ast.AST, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        within = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, within) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: relative import"
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, within) for alias in child.names)
        elif isinstance(child, ast.Constant) and MODULE_IN_TEXT.fullmatch(str(child.value)):
            yield Import(str(child.value).split(":")[0], child.lineno, within, text=True)
        yield from _found(child, within)


@cache
def _places() -> dict[str, str]:
    """By a file's path without its ending (or a package's folder) the file."""
    places = {}
    for path in python_files(*LAYERS, *UNSHIPPED):
        stem = name(path).removesuffix(".py")
        places[stem.removesuffix("/__init__")] = name(path)
    return places


def file_of(module: str) -> str | None:
    """The repository's file that a module, or a name taken from one, stands in; None when it is a library's."""
    steps = module.split(".")
    if steps[0] == "gazetteer" and len(steps) > 1 and steps[1] in LAYERS:
        steps = steps[1:]
    elif steps[0] not in ("gazetteer", *UNSHIPPED):
        return None
    for length in (len(steps), len(steps) - 1):
        if length and (found := _places().get("/".join(steps[:length]))):
            return found
    return None


def arrows(*tops: str, typing: bool = True) -> dict[str, set[str]]:
    """By file the files of the repository that it imports, itself left out; `typing` counts TYPE_CHECKING too."""
    found: dict[str, set[str]] = {}
    for path in python_files(*tops):
        # The version is nobody's knowledge: it may be read from anywhere.
        named = [one for one in imports(path) if (typing or not one.typing) and one.module != "gazetteer.__version__"]
        targets = {file_of(one.module) for one in named if not one.text}
        # In a string `gazetteer.something` may be a logger or a table's key: only a module's own name counts.
        targets |= {file_of(one.module) for one in named if one.text} - {"gazetteer/__init__.py"}
        found[name(path)] = {target for target in targets if target and target != name(path)}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of more than one node that all reach one another (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(set(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in order:
            visit(node)
    return found

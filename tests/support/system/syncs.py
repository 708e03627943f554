"""Where code waits for a device: a tensor's number asked for in a loop, found in the source."""

from __future__ import annotations

import ast
from pathlib import Path

WAITING = frozenset({"item", "tolist", "cpu", "numpy", "nonzero"})
"""Methods of a tensor that end only when the device has come so far."""
SCALARS = frozenset({"float", "int", "bool"})
REDUCING = frozenset({"all", "any", "sum", "mean", "max", "min", "norm", "std", "var", "count_nonzero", "isfinite"})
"""What makes a number of a tensor; ``float`` of it waits, ``float`` of a string does not."""
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def waits_in_loops(path: Path) -> list[str]:
    """``function: expression`` of every wait that a loop of this file repeats; none where torch is not named.

    What a loop runs over is asked once and is no part of it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if "torch" not in {name.name.split(".")[0] for node in ast.walk(tree) for name in _imported(node)}:
        return []
    return [f"{function}: {ast.unparse(call)}" for function, call in _waits(tree, "", False)]


def _imported(node: ast.AST) -> list[ast.alias]:
    if isinstance(node, ast.ImportFrom):
        return [ast.alias(node.module or "")]
    return node.names if isinstance(node, ast.Import) else []


def _waits(node: ast.AST, function: str, looped: bool) -> list[tuple[str, ast.Call]]:
    found: list[tuple[str, ast.Call]] = []
    if isinstance(node, ast.FunctionDef):
        function, looped = node.name, False
    if isinstance(node, ast.Call) and looped and _waiting(node):
        found.append((function, node))
    once = _once(node)
    for child in ast.iter_child_nodes(node):
        inside = looped or (isinstance(node, LOOPS) and child not in once)
        found += _waits(child, function, inside)
    return found


def _once(node: ast.AST) -> list[ast.AST]:
    """The parts of a loop that are evaluated before it."""
    if isinstance(node, ast.For):
        return [node.iter]
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return [node.generators[0]]
    return []


def _waiting(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in WAITING and not call.args
    if not (isinstance(call.func, ast.Name) and call.func.id in SCALARS):
        return False
    calls = [one for argument in call.args for one in ast.walk(argument) if isinstance(one, ast.Call)]
    return any(isinstance(one.func, ast.Attribute) and one.func.attr in REDUCING for one in calls)

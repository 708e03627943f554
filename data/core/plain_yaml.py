"""YAML as people mean it, and no more: plain values, text keys, each once; what is wrong is said with its place.

Of YAML 1.1's surprises none is left: ``no`` is text, as are ``010``, ``1:30`` and ``2001-99-99``, and ``1e-4`` is a
number (YAML 1.2's core schema, with ``1_000`` beside it).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from gazetteer.data.core.errors import InputError

MOST_VALUES = 100_000
"""Values that a text with aliases may stand for."""


def read_yaml(text: str, what: str) -> Any:
    """The value of a YAML text: mappings, lists, text, numbers, true, false and null.

    Args:
        what: the text's name in complaints, e.g. ``The configuration my.yaml``.

    Raises:
        InputError: no YAML, or YAML of other things than these; says what, with line and column.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _inspect(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise InputError(f"{what} is not valid YAML: {error.problem or error.context}{place}.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise InputError(
            f"{what} is not valid YAML: it holds a character that no text has, number {error.character} "
            f"(line {line}, column {column})."
        ) from error
    except RecursionError as error:
        raise InputError(f"{what} is nested too deeply.") from error


def place_of(text: str, keys: Sequence[str | int]) -> str:
    """Where a value stands in a YAML text, ``line 4, column 9``: its key, or what should hold it.

    Args:
        text: that `read_yaml` has read.
        keys: from the outermost on, names in mappings and numbers in lists.
    """
    loader = _Loader(text)
    try:
        node: Any = loader.get_single_node()
    finally:
        loader.dispose()
    mark = node.start_mark
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            mark = node.start_mark
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        pair = next(((name, value) for name, value in pairs if name.value == key), None)
        if pair is None:
            break
        mark, node = pair[0].start_mark, pair[1]
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _Loader(yaml.SafeLoader):
    """Constructs what `read_yaml` promises, of nodes that `_inspect` has passed."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """A value; one that does not fit the tag it was given is refused at its place."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            raise _wrong(f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}", node) from error


def _wrong(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _other(loader: Any, suffix: str, node: yaml.Node) -> Any:
    raise _wrong(f"{node.tag} is not accepted; plain values are", node)


def _inspect(root: yaml.Node) -> None:
    """Refuse keys that are no text or stand there twice, and aliases that stand for themselves or for too much.

    PyYAML itself takes the last of equal keys, and any key that has a hash.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: Any) -> int:
        if id(node) in inside:
            raise _wrong("an alias stands for what it is in", node)
        if id(node) not in sizes:
            inside.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _below(node)))
            inside.discard(id(node))
        return sizes[id(node)]

    if size(root) > max(MOST_VALUES, len(sizes)):
        raise _wrong(f"its aliases stand for {size(root)} values", root)


def _below(node: Any) -> list[Any]:
    """The nodes that a node holds."""
    if isinstance(node, yaml.ScalarNode):
        try:  # JSON writes one character as two halves, which PyYAML leaves as they are
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise _wrong("the text holds half a character", node) from error
        return []
    if not isinstance(node, yaml.MappingNode):
        return list(node.value)
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise _wrong("a key must be text", key)
        if key.value in seen:
            raise _wrong(f"the key {key.value} stands there twice", key)
        seen.add(key.value)
    return [node for pair in node.value for node in pair]


_FORMS = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)",
    "null": r"~|null|Null|NULL|",
    "merge": r"<<",
}
for _name, _form in _FORMS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_form})\Z"), None)
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is not None and tag.rpartition(":")[2] in ("bool", "int", "float", "null", "str", "seq", "map")
}
_Loader.add_multi_constructor("", _other)

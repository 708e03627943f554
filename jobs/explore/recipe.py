"""An edit to take along: as the YAML that `gazetteer steer draw` takes, as Python, and inside the picture itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gazetteer.data.inputs.edits import Edit

LINE = 120


def plain_edits(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """The edits as YAML and JSON can hold them, without what is at its default."""
    return [_listed(edit.as_dict()) for edit in edits]


def as_yaml(edits: Sequence[Edit]) -> str:
    """A file for ``--edits``."""
    text: str = yaml.safe_dump(
        {"edits": plain_edits(edits)}, sort_keys=False, default_flow_style=None, width=LINE, allow_unicode=True
    )
    return text


def as_command(run: str, edits: Sequence[Edit], prompt: str, seed: int, configured: Sequence[str]) -> str:
    """The command that draws the same picture from the YAML, saved as ``edits.yaml``.

    Args:
        configured: the options (``--config``, ``--set``) with which the run's configuration is named.
    """
    named = [run] if any(not edit.targets for edit in edits) else []
    words = ["gazetteer", "steer", "draw", *named, "--edits", "edits.yaml", "--prompt", prompt, "--seed", str(seed)]
    return shlex.join([*words, "--out", "pictures", *configured])


def as_python(
    run: str, edits: Sequence[Edit], prompt: str, seed: int, config: str | None, overrides: Sequence[str]
) -> str:
    """A script that draws the same picture and saves it as ``edited.png``."""
    arguments = [*([repr(config)] if config or overrides else []), *([repr(list(overrides))] if overrides else [])]
    lines = ["import gazetteer as gz", "", f"config = gz.load_config({', '.join(arguments)})"]
    lines += ["edits = [", *(f"    {_call('Edit', edit)}," for edit in plain_edits(edits)), "]"]
    if any(not edit.targets for edit in edits):
        lines.append(f"edits = gz.resolve(edits, {run!r})")
    lines.append(f"picture = gz.draw(config, {prompt!r}, seed={seed}, edits=edits)")
    return "\n".join([*lines, 'picture.save("edited.png")', ""])


def record(edits: Sequence[Edit], prompt: str, seed: int) -> dict[str, Any]:
    """What a picture carries in its PNG text, under the key ``gazetteer``."""
    return {"prompt": prompt, "seed": seed, "edits": plain_edits(edits)}


def _listed(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, Mapping):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _call(name: str, values: Mapping[str, Any]) -> str:
    """A class of edits with its values, as Python writes it."""
    return f"gz.{name}({', '.join(f'{key}={_value(key, value)}' for key, value in values.items())})"


def _value(key: str, value: Any) -> str:
    if key == "region":
        return _call("Region", value)
    if key == "targets":
        return f"({''.join(_call('Target', item) + ', ' for item in value).rstrip()})"
    return repr(tuple(value)) if isinstance(value, list) else repr(value)

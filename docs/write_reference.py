"""Write the pages of docs/reference/ that the code can tell: the command line, the Python API, the configuration.

``python docs/write_reference.py``; a test compares the pages with the code.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import gazetteer  # noqa: E402
from gazetteer.jobs.cli.parser import EXIT_CODES, parser  # noqa: E402
from gazetteer.jobs.config.reference import reference as configuration  # noqa: E402

FOLDER = ROOT / "docs" / "reference"

SUBJECTS = {
    "Labelling": ("load_config", "RunConfig", "label", "relabel", "summarise", "plan", "Rates", "write_atlas"),
    "Tables": (
        "load_labels", "load_features", "load_candidates", "load_segments", "load_images", "load_causal",
        "load_components", "show", "FeatureCard", "decode_image", "struct_to_mask",
    ),
    "Autoencoders": ("SparseAutoencoder", "load_site_saes", "TrainConfig", "TensorSource", "train_sae", "Site"),
    "Steering": ("Edit", "Target", "Region", "read_edits", "resolve", "steer", "draw", "load_pipeline"),
    "Layout": ("layout_of_labels", "open_run", "fit_layout", "predict_layout"),
    "Weights": ("ScoreConfig", "score_weights", "ablation", "Delta", "save_delta", "load_delta", "applied"),
    "Errors": ("GazetteerError", "InputError"),
}  # fmt: skip
"""The public names by what they are for."""


def commands(root: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Every verb that does something (not those that only lead to others): words, help, parser."""
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                deeper = list(commands(child))
                yield from deeper or [(child.prog, helps.get(name, ""), child)]


def command_line() -> str:
    """The page of the command line."""
    lines = [
        "# Command line",
        "",
        "<!-- written by docs/write_reference.py -->",
        "",
        f"`gazetteer VERB --help` says the same in a terminal. {EXIT_CODES[0].upper()}{EXIT_CODES[1:]}.",
        "",
    ]
    for words, about, child in commands(parser()):
        lines += [f"## `{words}`", "", f"{about[:1].upper()}{about[1:]}{'' if about.endswith('?') else '.'}", ""]
        rows = [_row(action) for action in child._actions if not isinstance(action, argparse._HelpAction)]
        if rows:
            lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(action: argparse.Action) -> str:
    value = _value(action)
    if action.option_strings:
        name = ", ".join(_code(f"{option}{f' {value}' if value else ''}") for option in action.option_strings)
    else:
        name = _code(value)
    meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%").replace("|", "\\|")
    needed = " (required)" if action.required and action.option_strings else ""
    return f"| {name} | {meaning}{needed} |"


def _code(text: str) -> str:
    """As code in a table: one backslash before a bar is taken off by GitHub and shown by the site."""
    return f"<code>{escape(text).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _value(action: argparse.Action) -> str:
    """What stands for an argument's value: `FILE`, `{a,b}`, `KEY=VALUE …`; empty for a flag."""
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        word = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        word = str(action.metavar or action.dest.upper())
    return f"{word} …" if action.nargs in ("*", "+", argparse.REMAINDER) else word


def python_api() -> str:
    """The page of the Python API: every name with its signature and first sentence; the site adds the docstrings."""
    lines = [
        "# Python",
        "",
        "<!-- written by docs/write_reference.py -->",
        "",
        "Everything here is imported from `gazetteer` itself; nothing is loaded before it is used.",
        "",
    ]
    for subject, names in SUBJECTS.items():
        lines += [f"## {subject}", ""]
        for name in names:
            about, signature = _about(getattr(gazetteer, name))
            lines += [f"### `{name}`", "", *([f"`{name}{signature}`", ""] if signature else []), about, ""]
            lines += [f"::: {gazetteer._WHERE[name]}.{name}", ""]
    return "\n".join(lines)


def _about(value: Any) -> tuple[str, str]:
    """The first sentence of what a public name says of itself, and how it is called; empty for an error."""
    text = " ".join(inspect.cleandoc(value.__doc__ or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:])\s(?=[A-Z])", text)[0]
    if isinstance(value, type) and issubclass(value, Exception):
        return sentence, ""
    return sentence, _signature(value)


def _signature(value: Any) -> str:
    """The arguments, without their types, defaults where they are short."""
    parameters = []
    for parameter in inspect.signature(value).parameters.values():
        default = parameter.default
        plain = isinstance(default, bool | int | float | str | None) and default == default  # a NaN says nothing
        if default is not inspect.Parameter.empty and not plain:
            default = ...
        parameters.append(parameter.replace(annotation=inspect.Parameter.empty, default=default))
    return str(inspect.Signature(parameters)).replace("Ellipsis", "…")


PAGES = {"cli.md": command_line, "python.md": python_api, "configuration.md": configuration}


if __name__ == "__main__":
    for file, written in PAGES.items():
        (FOLDER / file).write_text(written(), encoding="utf-8")
        print(f"docs/reference/{file}")

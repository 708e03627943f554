"""What all pages say exists: commands and their options, modules and scripts, configurations, files, links."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from gazetteer.jobs.cli.parser import parser
from tests.support.system.imports import LAYERS, UNSHIPPED, file_of, name, python_files
from tests.support.system.pages import blocks, pages, title
from tests.support.system.running import ROOT

ALL = [pytest.param(page, id=title(page)) for page in pages()]
PLACE = re.compile(rf"`((?:{'|'.join((*LAYERS, *UNSHIPPED))})/[\w./*-]*[\w*])`")
FILE_IN_CODE = re.compile(rf"(?<![\w/.{{])((?:{'|'.join((*LAYERS, *UNSHIPPED))})/[\w/]*\w\.(?:py|md|yaml|js|sh|txt))\b")
MODULE_IN_CODE = re.compile(rf"`(?:gazetteer\.)?((?:{'|'.join(LAYERS[:-1])})(?:\.[a-z_]+)+)(?:\.[A-Z]\w+)?`")


def typed(page: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, && taken apart."""
    found = [words for block in blocks(page, "sh") for words in block.commands()]
    return [part for words in found for part in split(words, "&&")]


def split(words: list[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == at:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


@pytest.mark.parametrize("page", ALL)
def test_every_command_is_understood(page: Path) -> None:
    for program, *words in typed(page):
        if program == "gazetteer" and words != ["--version"]:
            asked = parser().parse_args(words)
            assert callable(asked.action)
            if asked.verb == "submit":
                parser().parse_args(asked.command[1:])
        elif program.endswith("python"):
            script = words[0]
            known = importlib.util.find_spec(words[1]) if script == "-m" else (ROOT / script).is_file()
            assert known, words
        elif program == "make":
            done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ALL)
def test_every_python_block_compiles_and_imports_what_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block.text, title(page), "exec")
        for module, names in re.findall(r"^from (gazetteer[\w.]*) import ([\w, ]+)$", block.text, re.M):
            for word in names.split(", "):
                assert hasattr(importlib.import_module(module), word), (module, word)


@pytest.mark.parametrize("page", ALL)
def test_every_yaml_block_is_a_mapping(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block.text), dict), block.text


@pytest.mark.parametrize("page", ALL)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """In ticks, by its place in the repository; a star stands for anything."""
    text = page.read_text(encoding="utf-8")
    wrong = [place for place in PLACE.findall(text) if not list(ROOT.glob(place))]
    assert wrong == []
    commands = re.findall(r"python (?:-m ([\w.]+)|(\w+/[\w/]+\.py))", text)
    assert [module for module, _ in commands if module and not importlib.util.find_spec(module)] == []
    assert [script for _, script in commands if script and not (ROOT / script).is_file()] == []
    modules = set(re.findall(r"`(gazetteer(?:\.[a-z_]+){2,})[:`]", text))
    assert [module for module in modules if not module_or_name(module)] == []


def test_every_file_and_module_that_the_code_names_exists() -> None:
    """In comments, docstrings and help."""
    wrong = []
    for path in python_files(*LAYERS, *UNSHIPPED):
        text = path.read_text(encoding="utf-8")
        wrong += [f"{name(path)}: {file}" for file in FILE_IN_CODE.findall(text) if not (ROOT / file).exists()]
        found = MODULE_IN_CODE.findall(text)
        wrong += [f"{name(path)}: {module}" for module in found if file_of(f"gazetteer.{module}") is None]
    assert wrong == []


def module_or_name(dotted: str) -> bool:
    """Whether a dotted text is a module or something in one."""
    *parents, last = dotted.split(".")
    try:
        return importlib.util.find_spec(dotted) is not None
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(".".join(parents)), last)


@pytest.mark.parametrize("page", ALL)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_no_page_is_only_reachable_by_its_name() -> None:
    """The site's table of contents lists every page."""
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert listed == {title(page).removeprefix("docs/") for page in pages() if title(page).startswith("docs/")}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150

"""What the pages on layouts, steering and causal labels tell people to type is understood; test_readme.py runs some."""

from __future__ import annotations

import importlib.util
import re
import shlex

import pytest

from gazetteer.jobs.cli.main import parser
from tests.support.system.running import ROOT

PAGES = {"layout": {"layout", "atlas"}, "steering": {"steer", "atlas"}, "causal": {"causal", "atlas"}}
"""By page the commands of `gazetteer` that it shows."""


def blocks(page: str) -> list[str]:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)


def commands(block: str) -> list[list[str]]:
    """The words of every command, continued lines joined, those after && apart."""
    found = [[]]
    for line in block.replace("\\\n", " ").splitlines():
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word == "&&":
                found.append([])
            else:
                found[-1].append(word)
    return [words for words in found if words]


CASES = [pytest.param(block, id=f"{page}-{i}") for page in PAGES for i, block in enumerate(blocks(page))]


@pytest.mark.parametrize("block", CASES)
def test_every_command_of_a_block_is_understood(block: str) -> None:
    assert commands(block)
    for program, *words in commands(block):
        if program == "gazetteer":
            assert callable(parser().parse_args(words).action), words
        elif words[0] == "-m":
            assert program == "python" and importlib.util.find_spec(words[1]), words
        else:
            assert program == "python" and (ROOT / words[0]).is_file(), words


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_its_command(page: str) -> None:
    every = [words for block in blocks(page) for words in commands(block)]
    assert {words[1] for words in every if words[0] == "gazetteer"} == PAGES[page]

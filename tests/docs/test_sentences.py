"""Commands of sentences, and programs wherever a page calls them: their options are those that they take."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gazetteer.jobs.cli.parser import parser
from tests.support.system.pages import blocks, pages, title
from tests.support.system.running import ROOT

TICKED = re.compile(r"`((?:gazetteer|python(?: -m)? benchmarks)[^`\n]*)`")


class Parsed(Exception):
    """A program has understood its command line; nothing further of it is wanted."""


def said(page: Path, program: str) -> Iterator[list[str]]:
    """The commands of a page that have options, what ... stands for left out: of sentences, and programs of blocks."""
    called = [words for block in blocks(page, "sh") for words in block.commands() if program == "python"]
    yield from (["python", *words[1:]] for words in called if any(word.startswith("benchmarks") for word in words[1:3]))
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for command in TICKED.findall(text):
        words = [word for word in shlex.split(command.replace("…", "").replace("...", "")) if word != "["]
        if words[0] == program and any(word.startswith("--") for word in words):
            yield words


def of_pages(program: str) -> list[object]:
    return [
        pytest.param(words, id=f"{title(page)}: {shlex.join(words)}")
        for page in pages()
        for words in said(page, program)
    ]


def options_of(words: list[str]) -> set[str]:
    """The options of the verb that some words name, its own and those of all above it."""
    inside, options = parser(), set[str]()
    while True:
        options |= {option for action in inside._actions for option in action.option_strings}
        verbs = next((action for action in inside._actions if isinstance(action, argparse._SubParsersAction)), None)
        verb = None if verbs is None else next((word for word in words if word in verbs.choices), None)
        if verbs is None or verb is None:
            return options
        inside, words = verbs.choices[verb], words[words.index(verb) + 1 :]


@pytest.mark.parametrize("words", of_pages("gazetteer"))
def test_a_verb_has_the_options_that_a_sentence_gives_it(words: list[str]) -> None:
    named = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
    assert named <= options_of(words[1:])


@pytest.mark.parametrize("words", of_pages("python"))
def test_a_program_understands_what_a_sentence_calls_it_with(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser, args: object = None, namespace: object = None) -> None:
        parse(self, args, namespace)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.chdir(ROOT)
    module, *options = words[2:] if words[1] == "-m" else [words[1].removesuffix(".py").replace("/", "."), *words[2:]]
    monkeypatch.setattr(sys, "argv", [module, *options])
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__", alter_sys=True)

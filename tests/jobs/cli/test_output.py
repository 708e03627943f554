"""With `--json` stdout holds one JSON object and nothing else, whatever the verb and however it ends."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gazetteer.jobs.cli.main import main
from gazetteer.jobs.cli.output import finite
from gazetteer.jobs.cli.parser import parser
from tests.support.system.running import ROOT, gazetteer, in_process

WITHOUT = {("submit",)}
"""Hands a command, with its own --json, to a cluster and shows what that prints."""


def verbs(above: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list]]:
    """Every verb that does something, with the actions of its parser."""
    below = [action for action in above._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield words, above._actions
    for action in below:
        for name, one in action.choices.items():
            yield from verbs(one, (*words, name))


ALL = dict(verbs(parser()))


def test_every_verb_takes_it() -> None:
    without = {words for words, actions in ALL.items() if not any("--json" in a.option_strings for a in actions)}
    assert without == WITHOUT


@pytest.mark.parametrize("words", [one for one in ALL if one not in WITHOUT], ids=" ".join)
def test_a_verb_that_fails_says_why_in_the_object(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "there").write_text("not a run, a model or an edit")
    nothing = str(tmp_path / "there")
    given: list[str] = []
    for action in ALL[words]:
        if "--set" in action.option_strings:
            given += ["--set", "imagez=3"]
        elif action.option_strings and (action.required or action.option_strings[0] in ("--model", "--file")):
            given += [action.option_strings[0], nothing]
        elif not action.option_strings:
            given.insert(0, nothing)
    if words == ("token",):
        given = ["--file", str(tmp_path)]
    done = in_process(*words, *given, "--json")
    assert done.returncode in (1, 2), done.stderr
    found = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    assert "not foreseen" not in found["error"]
    assert done.stderr.strip().endswith(f"gazetteer: {found['error']}")


def test_what_is_printed_by_libraries_and_children_stays_out(tmp_path: Path) -> None:
    """Prose of print, of file descriptor 1 and of a child process, before and after the object."""
    script = (
        "import argparse, os, subprocess\n"
        "from gazetteer.jobs.cli.output import one_object, print_json\n"
        "arguments = argparse.Namespace(json=True)\n"
        "with one_object(arguments):\n"
        "    print('prose'); os.write(1, b'descriptor\\n'); subprocess.run(['echo', 'child'])\n"
        "    print_json(arguments, {'a': float('nan')})\n"
        "    print('more')\n"
        "print('afterwards')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == '{"a": null}\nafterwards\n'
    assert sorted(done.stderr.split()) == ["child", "descriptor", "more", "prose"]


@pytest.mark.parametrize(
    "words",
    [
        ["status"], ["verify"], ["summary"], ["quality", "--no-shuffle", "--no-accuracy"],
        ["compare", "RUN"], ["atlas", "--out", "OUT"],
        ["config"], ["plan"], ["doctor"], ["token", "--file", "OUT"], ["launch", "OUT"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_verb_that_succeeds_prints_the_object_alone(words: list[str], scenes_run: Path, tmp_path: Path) -> None:
    verb, *rest = words
    of_run = [str(scenes_run)] if verb in ("status", "verify", "summary", "quality", "compare", "atlas") else []
    rest = [{"RUN": str(scenes_run), "OUT": str(tmp_path / "out")}.get(word, word) for word in rest]
    done = in_process(verb, *of_run, *rest, "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert "exit_code" not in json.loads(done.stdout)


def test_a_process_keeps_to_it_too() -> None:
    done = gazetteer("config", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "scenes"


def test_numbers_that_json_lacks_become_null() -> None:
    assert finite({"a": [float("nan"), 1.5, (float("-inf"), "x")], "b": {"c": 2}}) == {
        "a": [None, 1.5, [None, "x"]], "b": {"c": 2},
    }  # fmt: skip


@pytest.mark.parametrize("words", [["compact", "run", "--megabytes", "nan"], ["summary", "run", "--wrong"], ["plann"]])
def test_a_wrong_word_is_one_object_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert (ended.value.code, said["exit_code"]) == (2, 2)
    assert printed.err.endswith(f"error: {said['error']}\n")

"""The pages and the picture that are written from the code say what the code says; `make docs` writes them again."""

from __future__ import annotations

import argparse
import re
import xml.etree.ElementTree as ET
from html import unescape

import gazetteer
from docs import draw_rooms, write_reference
from gazetteer.jobs.cli.parser import parser
from tests.support.system.running import ROOT

NEWER = "run `make docs`"


def test_the_picture_of_the_rooms_shows_the_arrows_of_the_code() -> None:
    text = draw_rooms.PICTURE.read_text(encoding="utf-8")
    (drawn,) = re.findall(r"<desc>(.*?)</desc>", text, re.S)
    assert unescape(drawn) == unescape(draw_rooms.listing(draw_rooms.edges())), NEWER
    names = {element.text for element in ET.fromstring(text).iter() if element.get("class") == "name"}
    assert names == {room.split("/")[-1] for room in draw_rooms.rooms()}, NEWER


def test_arrows_that_follow_from_others_are_left_out() -> None:
    assert draw_rooms.reduced([("a", "b"), ("b", "c"), ("a", "c"), ("a", "d")]) == [("a", "b"), ("a", "d"), ("b", "c")]


def test_the_pages_written_from_the_code_are_new() -> None:
    for file, written in write_reference.PAGES.items():
        assert (ROOT / "docs" / "reference" / file).read_text(encoding="utf-8") == written(), NEWER


def test_the_python_page_has_every_public_name() -> None:
    assert sorted(name for names in write_reference.SUBJECTS.values() for name in names) == gazetteer.__all__


def test_the_python_page_says_what_a_name_is_where_nothing_renders_it() -> None:
    parts = re.split(r"^### `(\w+)`$", write_reference.python_api(), flags=re.M)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert sorted(said) == gazetteer.__all__
    assert said["label"].startswith(
        "\n\n`label(config, out, *, retry_failed=False, reuse=None)`\n\nCarry a labelling run"
    )
    for name, text in said.items():
        assert len(text.split("\n\n:::")[0].split("\n\n")[-1]) > 10, name


def test_the_command_line_page_has_every_verb_with_its_options() -> None:
    page = write_reference.command_line()
    verbs = re.findall(r"^## `gazetteer (.*)`$", page, re.M)
    assert {"label", "sae train", "attribute apply", "steer draw", "layout evaluate"} <= set(verbs)
    (label,) = re.findall(r"^## `gazetteer label`\n(.*?)^## ", page, re.S | re.M)
    assert "| `RUN` | " in label and "| `--out RUN` | " in label


def test_every_argument_has_a_meaning_and_says_its_default() -> None:
    for words, _, child in write_reference.commands(parser()):
        for action in child._actions:
            about = f"{words} {action.option_strings or action.dest}: {action.help!r}"
            assert (action.help or "").strip(), about
            unsaid = action.default in (None, "", []) or action.nargs == 0 or action.default is argparse.SUPPRESS
            nothing = isinstance(action.default, float) and not action.default  # a price or rate that is not stated
            assert unsaid or nothing or "default" in str(action.help), about


def test_no_bar_splits_a_row_of_the_command_line_page() -> None:
    made = argparse.ArgumentParser()
    made.add_argument("--to", metavar="FOLDER|hf:<NAME>", help="one|another")
    row = write_reference._row(made._actions[-1])
    assert row == "| <code>--to FOLDER&#124;hf:&lt;NAME&gt;</code> | one\\|another |"
    page = write_reference.command_line()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(len(re.split(r"(?<!\\)\|", row)) == 4 for row in rows) and "hf:OWNER/NAME" in page
    assert not any(cell.strip() == "" for row in rows for cell in re.split(r"(?<!\\)\|", row)[1:3])

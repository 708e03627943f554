"""Tables for people: whole in a pipe and on a narrow terminal, aligned, and without markup."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from gazetteer.data.core.terminal import print_table

LONG = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
PROGRAM = (
    "from gazetteer.data.core.terminal import print_table\n"
    f"print_table({{'block': '', 't': '.2f', 'said': ''}}, [['{LONG}', 0.5, 'what ' * 20], ['mid', 1, 'end']])\n"
)


def test_text_stands_left_and_numbers_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"block": "", "t": ".2f", "features": ","}, [[LONG, 1.0, 12288], ["mid", 0.5, None]])
    assert capsys.readouterr().out.splitlines() == [
        "block" + " " * (len(LONG) - 5) + "     t  features",
        LONG + "  1.00    12,288",
        "mid" + " " * (len(LONG) - 3) + "  0.50         -",
    ]


def test_wide_letters_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"concept": "", "n": "d"}, [["猫", 1], ["dog", 2]])
    assert capsys.readouterr().out.splitlines()[1:] == ["猫       1", "dog      2"]


def test_nothing_in_a_cell_is_markup_and_a_row_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"[bold]x[/bold]": "", "message": ""}, [["[red]a[/red] :smile:", "one\ntwo\x1b[31m"]])
    assert capsys.readouterr().out == (
        "[bold]x[/bold]        message\n[red]a[/red] :smile:  one two\\x1b[31m\n"
    )  # fmt: skip


def test_without_rows_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"block": ""}, [])
    assert capsys.readouterr().out == ""


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        print_table({"block": "", "t": ".2f"}, [["mid"]])


@pytest.mark.parametrize("columns", ["20", "80", "500"])
def test_a_pipe_gets_every_row_whole_and_plain(columns: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "COLUMNS": columns}, capture_output=True, text=True
    ).stdout
    assert f"{LONG}  0.50  {'what ' * 19}what\n" in said and len(said.splitlines()) == 3 and "\x1b" not in said


@pytest.mark.parametrize(("columns", "bold"), [("40", False), ("500", True)])
def test_a_terminal_gets_them_whole_too_and_bold_headings_where_they_fit(columns: str, bold: bool) -> None:
    shown, terminal = pty.openpty()
    env = {**os.environ, "COLUMNS": columns, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", PROGRAM], env=env, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    said = os.read(shown, 65536).decode()
    os.close(shown)
    assert f"{LONG}  0.50  {'what ' * 19}what\r\n" in said and len(said.splitlines()) == 3
    assert ("\x1b[1m" in said) is bold and said.endswith("1.00  end\r\n")

"""Tables for people: on a terminal, in a pipe, in a log and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def print_table(columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to standard output: a line of headings, then one line a row, and no rules.

    Every cell is printed whole. A table that is wider than the terminal is wrapped by the terminal, so that a row stays
    one line to `grep`, `less -S` and the clipboard. Headings are bold on a terminal alone; nothing in a cell is markup.

    Args:
        columns: heading -> format of the cells, as `format` takes it: "" for text, which stands left, and anything else
            (".2f", ",", ">") for what stands right.
        rows: cells in the order of the columns; None is shown as "-". Without rows nothing is printed.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading, form in columns.items():
        table.add_column(Text(heading), justify="right" if form else "left", no_wrap=True)
    for row in rows:
        cells = zip(row, columns.values(), strict=True)
        table.add_row(*(Text(_on_one_line("-" if cell is None else format(cell, form))) for cell, form in cells))
    if not table.row_count:
        return
    console = Console(force_jupyter=False, highlight=False)
    width = console.measure(table, options=console.options.update(width=10**6)).maximum
    if width <= console.width:
        table.header_style = "bold"
    console.width = max(width, 1)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        print(line.rstrip())


def _on_one_line(text: str) -> str:
    """The same with a space for every break of the line, and an escape for what no terminal shows (`\\x1b`)."""
    return "".join(c if c.isprintable() else " " if c.isspace() else repr(c)[1:-1] for c in text)

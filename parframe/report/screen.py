"""Tables and headings for a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parframe.report.formatting import printable, shortened

UNLIMITED = 10_000
"""Columns of output that is not a terminal: nothing in it is wrapped or shortened."""


def screen(file: TextIO | None = None) -> Console:
    """Return a console as wide as the terminal; output that is not a terminal has no limit.

    The environment variable ``COLUMNS`` overrides both. Colors are printed on a terminal only.
    """
    console = Console(file=file or sys.stdout, highlight=False, emoji=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNLIMITED
    return console


def heading(title: str, rest: str = "") -> Text:
    """Return the first line of a section: its title and a summary."""
    text = Text(printable(title), style="bold")
    if rest:
        text.append(f"  {printable(rest)}", style="not bold")
    return text


def lines(texts: Iterable[str], style: str = "") -> RenderableType:
    """Return lines of text, indented."""
    return Padding(Text(printable("\n".join(texts)), style=style), (0, 0, 0, 2), expand=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    shorten: Mapping[str, int] | None = None,
) -> RenderableType:
    """Return a table, indented; no cell is cut off.

    Columns in ``right`` hold numbers. Their cells and those of columns in ``whole`` do not wrap.
    Where the table is wider than the console, cells of the columns in ``shorten`` lose their middle
    beyond the given number of characters.
    """
    rows = list(rows)
    if shorten:
        widths = [shorten.get(column, UNLIMITED) for column in columns]
        short = [[shortened(c, w) for c, w in zip(row, widths, strict=True)] for row in rows]
        return FirstThatFits(
            table(columns, rows, right, whole), table(columns, short, right, whole)
        )
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        no_wrap = column in right or column in whole
        drawn.add_column(printable(column), justify=justify, overflow="fold", no_wrap=no_wrap)
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    return Padding(drawn, (0, 0, 0, 2), expand=False)


def line(text: str, style: str = "") -> RenderableType:
    """Return one line, indented, that does not wrap, so that a path can be copied from it."""
    return Group(Text(f"  {printable(text)}", style=style, no_wrap=True, overflow="ignore"))


class FirstThatFits:
    """The first of several renderables that fits the width of the console, else the last.

    Parameters
    ----------
    alternatives
        The renderables, the widest first.
    """

    def __init__(self, *alternatives: RenderableType) -> None:
        self.alternatives = alternatives

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(max_width=UNLIMITED)
        for alternative in self.alternatives:
            if Measurement.get(console, unlimited, alternative).maximum <= options.max_width:
                yield alternative
                return
        yield self.alternatives[-1]


BLANK = Text("")
"""Empty line between sections."""

"""Live view of a run on a terminal's stderr: its progress, and the state of every rank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from parframe.cli.output_stream import OutputStream

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_REFRESH_RATE = 8


class LiveView:
    """Line and table of the ranks of every run of this process, as a context manager.

    Leaving it removes the table and keeps the line. Without a terminal on stderr, nothing is shown.
    """

    def __init__(self, line: Callable[[], str]) -> None:
        self._line = line
        self._live: Live | None = None
        self._terminal = sys.stderr.isatty()
        if self._terminal:
            from rich.console import Console

            self._tables = rank_tables()
            self._console = Console(stderr=True)

    def __enter__(self) -> Self:
        self.show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hide()
        if self._terminal and kind is None:
            self._console.print(self._line(), style="dim", highlight=False, markup=False)

    def show(self) -> None:
        """Show the view."""
        if not self._terminal or self._live is not None:
            return
        from rich.live import Live

        self._live = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=_REFRESH_RATE,
            transient=True,
        )  # fmt: skip
        self._live.start(refresh=True)

    def hide(self) -> None:
        """Hide the view, so that other output can take its place."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def share(self, out: TextIO) -> OutputStream:
        """Return a stream that hides the view before it writes to a terminal."""
        return _SharedTerminal(out, self) if self._terminal and out.isatty() else out

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self._line(), style="dim"), *self._tables())


class _SharedTerminal:
    """Terminal that a view shares with other output."""

    def __init__(self, out: TextIO, view: LiveView) -> None:
        self._out = out
        self._view = view

    def write(self, text: str) -> int:
        """Write text, after hiding the view."""
        if text:
            self._view.hide()
        return self._out.write(text)

    def flush(self) -> None:
        """Flush the written text."""
        self._out.flush()

    def isatty(self) -> bool:
        """Return True."""
        return True


def rank_tables() -> Callable[[], list[RenderableType]]:
    """Return a function that returns the tables of the ranks of all runs of this process."""
    from parframe.launcher import Launch, active_launches
    from parframe.report.ranks import RankTable

    known: dict[Launch, RankTable] = {}

    def render() -> list[RenderableType]:
        runs = active_launches()
        for run in runs:
            if run not in known:
                known[run] = RankTable(run.progress)
        return [known[run] for run in runs]

    return render

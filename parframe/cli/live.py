"""A live view of a run on a terminal's stderr: how far it is, and what every rank does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from parframe.cli.completions import Output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_A_SECOND = 8


class View:
    """A line, and below it the ranks of every run of this process; as a context.

    It is gone when it is left, and the line is what stays. Where stderr is no terminal there is
    nothing at all.

    Parameters
    ----------
    line
        What the line says now.
    """

    def __init__(self, line: Callable[[], str]) -> None:
        self._line = line
        self._live: Live | None = None
        self._terminal = sys.stderr.isatty()
        if self._terminal:
            from rich.console import Console

            self._picture = pictures()
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
        """Show it from now on."""
        if not self._terminal or self._live is not None:
            return
        from rich.live import Live

        self._live = Live(
            get_renderable=self._drawn, console=self._console, refresh_per_second=_A_SECOND,
            transient=True,
        )  # fmt: skip
        self._live.start(refresh=True)

    def hide(self) -> None:
        """Take it away, so that something else can be written where it is."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def aside(self, out: TextIO) -> Output:
        """A stream as it is, or if it is a terminal one that takes the view away to write."""
        return _Aside(out, self) if self._terminal and out.isatty() else out

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self._line(), style="dim"), *self._picture())


class _Aside:
    """A terminal that a view shares."""

    def __init__(self, out: TextIO, view: View) -> None:
        self._out = out
        self._view = view

    def write(self, text: str) -> int:
        """Write; nothing takes nothing away."""
        if text:
            self._view.hide()
        return self._out.write(text)

    def flush(self) -> None:
        """Let all be seen that was written."""
        self._out.flush()

    def isatty(self) -> bool:
        """Always."""
        return True


def pictures() -> Callable[[], list[RenderableType]]:
    """Whatever there is to be shown of the runs of this process, each time it is called."""
    from parframe.launcher import Launch, active_launches
    from parframe.report.ranks import Ranks

    known: dict[Launch, Ranks] = {}

    def drawn() -> list[RenderableType]:
        runs = active_launches()
        for run in runs:
            if run not in known:
                known[run] = Ranks(run.progress)
        return [known[run] for run in runs]

    return drawn

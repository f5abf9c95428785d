"""Progress bars on a terminal's stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

Update = Callable[[int, int], None] | None
"""Function that is called with what is done and the total; None without a terminal."""


def show_bytes(text: str) -> AbstractContextManager[Update]:
    """Show a progress bar of bytes."""
    return _show(text, ("DownloadColumn", "TransferSpeedColumn", "TimeRemainingColumn"))


def show_count(text: str) -> AbstractContextManager[Update]:
    """Show the progress of a number of items."""
    return _show(text, ("MofNCompleteColumn",))


@contextmanager
def _show(text: str, names: Sequence[str]) -> Iterator[Update]:
    """Show a progress bar with the columns of rich that have these names."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    label = bars.TextColumn("{task.description}")
    bar = [bars.BarColumn(bar_width=20)] if len(names) > 1 else []
    columns = [label, *bar, *(getattr(bars, name)() for name in names)]
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

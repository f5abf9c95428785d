"""Table of the current state of the ranks of a run, fitted to the terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from parframe.launcher import Progress
from parframe.report.formatting import printable, runs

QUIET = 2.0
"""Seconds without progress after which a row shows their number."""

_WINDOW = 3.0  # seconds over which rates are averaged
_PERCENT = "load"  # the phase whose steps are percentages
_BAR = 10


class RankTable:
    """Table of the ranks of a run, updated each time it is drawn.

    Parameters
    ----------
    read_progress
        Function that returns the progress of every rank.
    clock
        Clock in seconds, for rates.
    """

    def __init__(
        self,
        read_progress: Callable[[], Sequence[Progress]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_progress = read_progress
        self._clock = clock
        self._seen: dict[int, deque[tuple[float, str, int]]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a row a rank; if there are too many, a row for all ranks in the same state."""
        ranks = self._read_progress()
        rates = {state.rank: self._rate(state) for state in ranks}
        limit = max(1, (options.height or console.size.height) - 4)
        groups = [[state] for state in ranks] if len(ranks) <= limit else group_by_state(ranks)
        yield draw_ranks(groups[:limit], rates)
        hidden = sum(map(len, groups[limit:]))
        if hidden:
            yield Text(f"and {hidden} more", style="dim")

    def _rate(self, state: Progress) -> float | None:
        """Return the recent steps per second of a rank in its phase."""
        if state.step is None or state.phase == _PERCENT:
            return None
        now = self._clock()
        seen = self._seen.setdefault(state.rank, deque())
        if seen and (seen[-1][1] != state.phase or seen[-1][2] > state.step):
            seen.clear()
        seen.append((now, state.phase, state.step))
        while now - seen[0][0] > _WINDOW:
            seen.popleft()
        before, _, step = seen[0]
        return (state.step - step) / (now - before) if now > before else None


def draw_ranks(groups: Sequence[Sequence[Progress]], rates: dict[int, float | None]) -> Table:
    """Draw the table of ranks, one row a group.

    Parameters
    ----------
    groups
        Ranks in the same state, the least advanced first.
    rates
        Steps per second of each rank; None if unknown.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for name in ("rank", "phase", "step", "steps/s"):
        right = name in ("step", "steps/s")
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    table.add_column("operator", no_wrap=True, overflow="ellipsis", ratio=1)
    for group in groups:
        known = [rate for state in group if (rate := rates[state.rank]) is not None]
        table.add_row(
            runs(state.rank for state in group),
            "done" if group[0].done else printable(group[0].phase),
            _steps(group),
            f"{min(known):.1f}" if known else "",
            Text(printable(_place(group))),
        )
    return table


def group_by_state(ranks: Sequence[Progress]) -> list[list[Progress]]:
    """Group ranks in the same state, the least advanced first."""
    groups: dict[tuple[str, str, bool, bool], list[Progress]] = {}
    for state in ranks:
        groups.setdefault((state.phase, state.operator, state.waiting, state.done), []).append(
            state
        )
    return sorted(groups.values(), key=lambda group: min(_step(state) for state in group))


def _step(state: Progress) -> int:
    return -1 if state.step is None else state.step


def _steps(group: Sequence[Progress]) -> str:
    """Return the steps of a group: one number, or the smallest and the largest."""
    known = sorted({state.step for state in group if state.step is not None})
    if not known:
        return ""
    if group[0].phase == _PERCENT:
        full = _BAR * known[0] // 100
        return f"{'━' * full}{'─' * (_BAR - full)} {known[0]} %"
    return str(known[0]) if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _place(group: Sequence[Progress]) -> str:
    """Return the operator of a group, and the seconds without progress if they are many."""
    first = max(group, key=lambda state: state.age)
    if first.done:
        return ""
    place = "waiting for a batch" if first.waiting else first.operator
    long = bool(first.progressed) and first.age > QUIET
    return f"{place} ({first.age:.0f} s)".lstrip() if long else place

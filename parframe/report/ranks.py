"""What every rank of a run does at this moment, as a table that fits its terminal."""

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
"""Seconds without progress after which a rank's row says for how long."""

_WINDOW = 3.0  # seconds over which a rate is taken
_PERCENT = "load"  # the phase whose steps are parts of a hundred
_BAR = 10


class Ranks:
    """A table of the ranks of a run, drawn anew each time from what their records say.

    Parameters
    ----------
    ask
        What every rank is doing now.
    clock
        Seconds, for rates.
    """

    def __init__(
        self, ask: Callable[[], Sequence[Progress]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._seen: dict[int, deque[tuple[float, str, int]]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it: a row a rank, or where there is no room for so many, a row for those alike."""
        found = self._ask()
        rates = {one.rank: self._rate(one) for one in found}
        room = max(1, (options.height or console.size.height) - 4)
        groups = [[one] for one in found] if len(found) <= room else _alike(found)
        yield drawn(groups[:room], rates)
        hidden = sum(map(len, groups[room:]))
        if hidden:
            yield Text(f"and {hidden} more", style="dim")

    def _rate(self, one: Progress) -> float | None:
        """Steps a second of a rank in its phase, of late."""
        if one.step is None or one.phase == _PERCENT:
            return None
        now = self._clock()
        seen = self._seen.setdefault(one.rank, deque())
        if seen and (seen[-1][1] != one.phase or seen[-1][2] > one.step):
            seen.clear()
        seen.append((now, one.phase, one.step))
        while now - seen[0][0] > _WINDOW:
            seen.popleft()
        before, _, step = seen[0]
        return (one.step - step) / (now - before) if now > before else None


def drawn(groups: Sequence[Sequence[Progress]], rates: dict[int, float | None]) -> Table:
    """The table of ranks, those of a group in one row.

    Parameters
    ----------
    groups
        Ranks that do alike, the furthest back first.
    rates
        Steps a second by the rank, None where nothing is known.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for name in ("rank", "phase", "step", "a second"):
        right = name in ("step", "a second")
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    table.add_column("at", no_wrap=True, overflow="ellipsis", ratio=1)
    for group in groups:
        known = [rate for one in group if (rate := rates[one.rank]) is not None]
        table.add_row(
            runs(one.rank for one in group),
            "done" if group[0].done else printable(group[0].phase),
            _steps(group),
            f"{min(known):.1f}" if known else "",
            Text(printable(_place(group))),
        )
    return table


def _alike(found: Sequence[Progress]) -> list[list[Progress]]:
    """Ranks that are at the same, together; those that are furthest back first."""
    groups: dict[tuple[str, str, bool, bool], list[Progress]] = {}
    for one in found:
        groups.setdefault((one.phase, one.operator, one.waiting, one.done), []).append(one)
    return sorted(groups.values(), key=lambda group: min(_step(one) for one in group))


def _step(one: Progress) -> int:
    return -1 if one.step is None else one.step


def _steps(group: Sequence[Progress]) -> str:
    """Their steps: one number, or from the least to the most."""
    known = sorted({one.step for one in group if one.step is not None})
    if not known:
        return ""
    if group[0].phase == _PERCENT:
        full = _BAR * known[0] // 100
        return f"{'━' * full}{'─' * (_BAR - full)} {known[0]} %"
    return str(known[0]) if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _place(group: Sequence[Progress]) -> str:
    """What they are at, and for how long if that is long."""
    first = max(group, key=lambda one: one.age)
    if first.done:
        return ""
    place = "waits for a batch" if first.waiting else first.operator
    long = bool(first.progressed) and first.age > QUIET
    return f"{place} ({first.age:.0f} s)".lstrip() if long else place

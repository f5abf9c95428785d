"""Memory footprint of devices, compared with a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from parframe.checking import DeviceMemory
from parframe.report.formatting import amount, runs
from parframe.report.mesh import abridged
from parframe.report.screen import heading, table

_COLUMNS = ("weights", "cache", "activations", "total")


def memory_facts(memory: Mapping[int, DeviceMemory], budget: int | None) -> dict[str, Any]:
    """Return the footprint of ranks in bytes, with equal ranks in one row, and the budget."""
    rows: dict[DeviceMemory, list[int]] = {}
    for rank, need in memory.items():
        rows.setdefault(need, []).append(rank)
    return {
        "budget": budget,
        "most": max((need.total for need in memory.values()), default=0),
        "devices": [
            {
                "ranks": ranks,
                "weights": need.weights,
                "cache": need.cache,
                "activations": need.activations,
                "total": need.total,
            }
            for need, ranks in rows.items()
        ],
    }


def draw_memory(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield a table with a row for each group of ranks of equal footprint."""
    budget, most = facts["budget"], facts["most"]
    summary = f"{amount(most)} at most"
    if budget:
        summary += f", {_share(most / budget)} the budget of {amount(budget)}"
    yield heading("Memory per device", summary)
    rows = sorted(facts["devices"], key=lambda row: row["ranks"])
    yield table(
        ("ranks", *_COLUMNS),
        abridged(
            [[runs(row["ranks"]), *(amount(row[name]) for name in _COLUMNS)] for row in rows],
            1 + len(_COLUMNS),
            most=10,
        ),
        right=_COLUMNS,
    )


def _share(ratio: float) -> str:
    """Return a ratio as a percentage, or as a multiple from ten times on: `50% of`, `12 times`."""
    return f"{ratio:.0%} of" if ratio < 10 else f"{ratio:,.0f} times"

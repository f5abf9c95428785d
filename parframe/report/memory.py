"""What devices need of memory, against a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from parframe.checking import DeviceMemory
from parframe.report.mesh import abridged
from parframe.report.screen import heading, table
from parframe.report.words import amount, runs

_COLUMNS = ("weights", "cache", "activations", "total")


def memory_facts(memory: Mapping[int, DeviceMemory], budget: int | None) -> dict[str, Any]:
    """The bytes that ranks need, ranks that need the same in one row, and the budget."""
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
    """A row for devices that need the same; the budget in the heading."""
    budget, most = facts["budget"], facts["most"]
    told = f"{amount(most)} at most"
    if budget:
        told += f" of {amount(budget)} ({most / budget:.0%})"
    yield heading("Memory per device", told)
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

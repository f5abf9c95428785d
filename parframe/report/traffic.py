"""What devices communicate, for every mesh axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from rich.console import RenderableType

from parframe.report.screen import heading, lines, table
from parframe.report.words import amount
from parframe.rules.table import EXCHANGES


class Traffic(Protocol):
    """Communications of one kind over the same mesh axes."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes."""

    @property
    def kind(self) -> str:
        """The operator."""

    @property
    def count(self) -> int:
        """How many on the busiest device."""

    @property
    def bytes(self) -> int:
        """Their bytes."""


def traffic_facts(traffic: Iterable[Traffic]) -> list[dict[str, Any]]:
    """For every kind of communication and mesh axes: how often a device does it, and bytes."""
    return [
        {"axes": list(t.axes), "kind": t.kind, "count": t.count, "bytes": t.bytes} for t in traffic
    ]


def draw_traffic(facts: Iterable[Mapping[str, Any]], whose: str) -> Iterator[RenderableType]:
    """A row for every kind and axes; ``whose`` bytes they are."""
    facts = list(facts)
    rows = [
        [", ".join(f["axes"]), f["kind"], str(f["count"]), amount(f["bytes"])]
        for f in facts
        if f["kind"] != "recv"
    ]
    yield heading("Communication")
    if rows:
        yield table(("axis", "operator", "on a device", whose), rows, right=("on a device", whose))
        yield from (lines([told]) for told in _told(facts))
    else:
        yield lines(["none"])


def _told(facts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What happens in each kind of exchange."""
    for kind in dict.fromkeys(f["kind"] for f in facts):
        exchange = EXCHANGES.get(f"parframe.{kind}")
        if exchange is not None:
            yield f"{kind}: {exchange.says}"

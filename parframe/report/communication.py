"""Communication of devices, by mesh axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from rich.console import RenderableType

from parframe.report.formatting import amount
from parframe.report.screen import heading, lines, table
from parframe.rules.table import DISTRIBUTED_FORMS


class Traffic(Protocol):
    """Communication operators of one kind over the same mesh axes."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Mesh axes."""

    @property
    def kind(self) -> str:
        """Name of the operator."""

    @property
    def count(self) -> int:
        """Number of calls on the busiest device."""

    @property
    def bytes(self) -> int:
        """Bytes of all calls."""


def traffic_facts(traffic: Iterable[Traffic]) -> list[dict[str, Any]]:
    """Return calls on a device and bytes, by kind of communication and mesh axes."""
    return [
        {"axes": list(t.axes), "kind": t.kind, "count": t.count, "bytes": t.bytes} for t in traffic
    ]


def draw_traffic(facts: Iterable[Mapping[str, Any]], column: str) -> Iterator[RenderableType]:
    """Yield a table with a row for each kind and axes; ``column`` is the heading of the bytes."""
    facts = list(facts)
    rows = [
        [", ".join(f["axes"]), f["kind"], str(f["count"]), amount(f["bytes"])]
        for f in facts
        if f["kind"] != "recv"
    ]
    yield heading("Communication")
    if rows:
        yield table(
            ("axis", "operator", "calls per device", column),
            rows,
            right=("calls per device", column),
        )
        yield from (lines([text]) for text in _descriptions(facts))
    else:
        yield lines(["none"])


def _descriptions(facts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the description of each distributed form that occurs."""
    for kind in dict.fromkeys(f["kind"] for f in facts):
        form = DISTRIBUTED_FORMS.get(f"parframe.{kind}") or DISTRIBUTED_FORMS.get(kind)
        if form is not None:
            yield f"{kind}: {form.description}"

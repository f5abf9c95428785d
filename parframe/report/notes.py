"""Notes of a plan: tensors that are replicated or gathered, with bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from parframe.plan import Note
from parframe.report.formatting import amount, counted
from parframe.report.screen import BLANK, heading, lines, table
from parframe.sizes import evaluate, format_size, symbols_of

_MOST = 3


def note_facts(notes: Iterable[Note], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the notes, each with its bytes on one device as a symbolic size and as a number."""
    return [
        {
            "kind": note.kind,
            "where": note.where,
            "what": note.what,
            "size": format_size(note.bytes),
            "bytes": evaluate(note.bytes, sizes) if symbols_of(note.bytes) <= set(sizes) else None,
        }
        for note in notes
    ]


def draw_notes(facts: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Yield a table of the notes by kind: number, bytes, and the largest of them."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for fact in facts:
        kinds.setdefault(fact["kind"], []).append(fact)
    remarks = kinds.pop("remark", [])
    if remarks:
        yield heading("Notes")
        yield lines([remark["what"] for remark in remarks])
        yield BLANK
    yield heading("Replicated or gathered", "" if kinds else "nothing")
    if not kinds:
        return
    rows = []
    for kind, notes in kinds.items():
        rows.append([kind, counted(len(notes), "place"), _bytes(notes)])
        largest = sorted(_by_place(notes), key=lambda row: -row[1])
        for place, size, what in largest[:_MOST]:
            rows.append([f"  {place}", what, amount(size)])
        if len(largest) > _MOST:
            rest = sum(size for _, size, _ in largest[_MOST:])
            rows.append([f"  and {counted(len(largest) - _MOST, 'more module')}", "", amount(rest)])
    yield table(
        ("kind and largest modules", "", "bytes"),
        rows,
        right=("bytes",),
        shorten={"kind and largest modules": 42, "": 24},
    )


def _by_place(notes: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, str]]:
    """Return the notes of each module as one: module, bytes, description."""
    places: dict[str, list[Mapping[str, Any]]] = {}
    for note in notes:
        places.setdefault(note["where"], []).append(note)
    return [
        (
            place,
            sum(note["bytes"] or 0 for note in own),
            own[0]["what"].partition(" on every device ")[0]
            if len(own) == 1
            else counted(len(own), "operator"),
        )
        for place, own in places.items()
    ]


def _bytes(notes: Iterable[Mapping[str, Any]]) -> str:
    return amount(sum(note["bytes"] or 0 for note in notes))

"""Rows of measured engines that the shipped constants are fitted to, recorded by id.

Rows that a table gains later are held out: they validate the constants, and no figure of
in-sample or cross-validated errors includes them. `python -m benchmarks.calibration.fit --all-rows`
adds them to the record before it fits.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.calibration.engine_rows import Measured
from parframe.errors import ParframeError

PATH = Path(__file__).with_name("fitted_rows.toml")

HEAD = """\
# Rows that the constants in parframe/price/data/engines.toml are fitted to: numbers of the ids of
# each table's rows, written by `python -m benchmarks.calibration.fit --all-rows`. All other rows
# are held out.
"""

_ID = re.compile(r"(?P<table>.+)-(?P<number>\d{5})")


def recorded_ids(text: str) -> frozenset[str]:
    """Return the ids of rows in the text of a record."""
    return frozenset(
        f"{Path(table).stem}-{number:05d}"
        for table, spans in tomllib.loads(text).items()
        for number in _numbers(spans)
    )


def fitted_ids() -> frozenset[str]:
    """Return the ids of the rows that the shipped constants are fitted to."""
    return recorded_ids(PATH.read_text(encoding="utf-8"))


def split_rows(rows: Iterable[Measured]) -> tuple[list[Measured], list[Measured]]:
    """Return the rows that constants are fitted to, and the held-out rows."""
    known = fitted_ids()
    fitted: list[Measured] = []
    held_out: list[Measured] = []
    for row in rows:
        (fitted if row.id in known else held_out).append(row)
    return fitted, held_out


def record(rows: Iterable[Measured]) -> str:
    """Return the text of a record of rows.

    Raises
    ------
    ParframeError
        Of kind `input`, if an id is not its table's name and a number of five digits.
    """
    tables: dict[str, set[int]] = {}
    for row in rows:
        found = _ID.fullmatch(row.id)
        if found is None or found["table"] != Path(row.table).stem:
            raise ParframeError(
                "input",
                row.table,
                f"row id {row.id!r} has an unknown form",
                f"use ids such as {Path(row.table).stem}-00001",
            )
        tables.setdefault(row.table, set()).add(int(found["number"]))
    lines = [f'"{table}" = "{_spans(sorted(numbers))}"\n' for table, numbers in tables.items()]
    return HEAD + "".join(lines)


def _spans(numbers: Sequence[int]) -> str:
    """Write sorted numbers as spans, such as ``1-4 7 9-12``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return " ".join(f"{low}-{high}" if high > low else str(low) for low, high in spans)


def _numbers(spans: str) -> Iterable[int]:
    for span in spans.split():
        low, _, high = span.partition("-")
        yield from range(int(low), int(high or low) + 1)

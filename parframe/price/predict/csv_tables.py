"""Tables of rows as CSV: read, and written with what is predicted."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from parframe.errors import ParframeError
from parframe.price.predict.predictions import ADDED, Prediction

NEEDED = ("model", "gpu", "metric")
"""The columns without which nothing can be predicted."""

FIGURES = 6
"""Significant figures that are written."""

MAX_BYTES = 1 << 28
"""A longer table is not read."""

Row = Mapping[str, str | None]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    """Return the columns and the rows of a CSV file.

    Raises
    ------
    ParframeError
        Of kind `input`, if it cannot be read or lacks a column.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ParframeError(
                "input", str(path), f"has more than {MAX_BYTES >> 20} MiB", "give it in parts"
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise ParframeError(
            "input", str(path), f"cannot be read as CSV ({why})", "give a CSV file in UTF-8"
        ) from error
    lacking = [name for name in NEEDED if name not in columns]
    if lacking:
        raise ParframeError(
            "input",
            str(path),
            f"has no column {', '.join(lacking)}",
            "name the columns in the first line, as `parframe predict --help` lists them",
        )
    return columns, rows


def write_rows(
    path: Path, columns: Sequence[str], answered: Iterable[tuple[Row, Prediction]]
) -> None:
    """Write rows with what is predicted; columns of that name are replaced.

    Raises
    ------
    ParframeError
        Of kind `output`, if it cannot be written.
    """
    kept = [name for name in columns if name not in ADDED]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*kept, *ADDED], extrasaction="ignore")
            writer.writeheader()
            for row, found in answered:
                writer.writerow({**row, **cells(found)})
    except OSError as error:
        raise ParframeError(
            "output", str(path), f"cannot be written ({error.strerror})", "give another path"
        ) from error


def cells(found: Prediction) -> dict[str, str]:
    """Return the columns that a prediction adds."""
    return {
        "predicted": _plain(found.value),
        "low": _plain(found.low),
        "high": _plain(found.high),
        "why": found.why,
    }


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.{FIGURES}g}"

"""CSV tables: read the rows, and write them with their predictions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from parframe.errors import ParframeError
from parframe.price.predict.predictions import ADDED_COLUMNS, Prediction

REQUIRED_COLUMNS = ("model", "gpu", "metric")
"""Columns without which no row can be predicted."""

DIGITS = 6
"""Significant digits of written numbers."""

MAX_BYTES = 1 << 28
"""Maximum size of a table."""

Row = Mapping[str, str | None]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    """Return the columns and the rows of a CSV file.

    Raises
    ------
    ParframeError
        Of kind `input`, if it cannot be read or a required column is missing.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ParframeError(
                "input",
                str(path),
                f"is larger than {MAX_BYTES >> 20} MiB",
                "split it into several files",
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise ParframeError(
            "input", str(path), f"cannot be read as CSV ({why})", "use a CSV file in UTF-8"
        ) from error
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise ParframeError(
            "input",
            str(path),
            f"has no column {', '.join(map(repr, missing))}",
            "name the columns in the first line, as `parframe predict --help` lists them",
        )
    return columns, rows


def write_rows(
    path: Path, columns: Sequence[str], predictions: Iterable[tuple[Row, Prediction]]
) -> None:
    """Write rows with their predictions, which replace existing columns of the same names.

    Raises
    ------
    ParframeError
        Of kind `output`, if the file cannot be written.
    """
    kept = [name for name in columns if name not in ADDED_COLUMNS]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*kept, *ADDED_COLUMNS], extrasaction="ignore")
            writer.writeheader()
            for row, prediction in predictions:
                figures = (prediction.value, prediction.low, prediction.high)
                texts = ["" if value is None else f"{value:.{DIGITS}g}" for value in figures]
                cells = zip(ADDED_COLUMNS, (*texts, prediction.why), strict=True)
                writer.writerow({**row, **dict(cells)})
    except OSError as error:
        raise ParframeError(
            "output", str(path), f"cannot be written ({error.strerror})", "use another path"
        ) from error

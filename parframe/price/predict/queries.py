"""Rows of a table of measurements, parsed as queries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import attrs

from parframe.errors import ParframeError

COLUMNS = (
    "model", "weight_dtype", "kv_dtype", "gpu", "n_gpus", "tp", "pp", "ep", "dp", "batch",
    "concurrency", "isl", "osl", "metric", "unit", "framework",
)  # fmt: skip
"""Columns that are read. ``requests`` and ``notes`` are optional further columns."""

DTYPES: Mapping[str, str] = {
    "float32": "fp32", "fp32": "fp32",
    "bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "half": "fp16",
    "16": "bf16", "w16a16": "bf16",
    "fp8": "fp8", "e4m3": "fp8", "fp8block": "fp8", "w8a8fp8": "fp8", "fp8e4m3": "fp8",
    "float8": "fp8",
    "int8": "int8", "w8a8": "int8", "w8a16": "int8", "q80": "int8",
    "int4": "int4", "awq": "int4", "gptq": "int4", "w4a16": "int4", "q4": "int4", "q4km": "int4",
    "q40": "int4", "int4awq": "int4", "w4a8awq": "int4",
    "fp4": "fp4", "nvfp4": "fp4", "mxfp4": "fp4", "w4a4": "fp4", "w4a16mxfp4": "fp4",
}  # fmt: skip
"""Dtypes by their spelling in tables, in lower case without signs."""

MAX_NUMBER = 1e9
"""Maximum of any number in a row."""

_REQUESTS = re.compile(r"(?<![\d.])(\d[\d,]*) requests")


@attrs.frozen
class Query:
    """A metric of a deployment under a load; None stands for an empty cell.

    ``batch`` requests are sent at once and served as a batch; ``concurrency`` is infinite for as
    many requests in flight as possible; ``request_rate`` is per second, infinite for all at once.
    ``prompt`` and ``output`` are tokens of a request, ``requests`` their number in the run.
    """

    model: str
    gpu: str
    metric: str
    unit: str = ""
    framework: str = ""
    weights: str | None = None
    cache: str | None = None
    devices: int | None = None
    tensor: int | None = None
    pipeline: int | None = None
    expert: int | None = None
    data: int | None = None
    batch: float | None = None
    concurrency: float | None = None
    request_rate: float | None = None
    prompt: float | None = None
    output: float | None = None
    requests: float | None = None


def parse_query(row: Mapping[str, str | None]) -> Query:
    """Parse a row.

    Raises
    ------
    ParframeError
        Of kind `usage`, if a cell is invalid.
    """
    cells = {name: (value or "").strip() for name, value in row.items() if name}
    concurrency, request_rate = _parse_load(cells.get("concurrency", ""))
    requests = _parse_number("requests", cells.get("requests", ""))
    return Query(
        model=cells.get("model", ""),
        gpu=cells.get("gpu", ""),
        metric=cells.get("metric", ""),
        unit=cells.get("unit", ""),
        framework=cells.get("framework", ""),
        weights=_parse_dtype("weight_dtype", cells.get("weight_dtype", "")),
        cache=_parse_dtype("kv_dtype", cells.get("kv_dtype", "")),
        devices=_parse_count("n_gpus", cells.get("n_gpus", "")),
        tensor=_parse_count("tp", cells.get("tp", "")),
        pipeline=_parse_count("pp", cells.get("pp", "")),
        expert=_parse_expert_degree(cells.get("ep", "")),
        data=_parse_count("dp", cells.get("dp", "")),
        batch=_parse_batch(cells.get("batch", "")),
        concurrency=concurrency,
        request_rate=request_rate,
        prompt=_parse_length("isl", cells.get("isl", "")),
        output=_parse_length("osl", cells.get("osl", "")),
        requests=requests or _requests_in_notes(cells.get("notes", "")),
    )


def _parse_dtype(column: str, cell: str) -> str | None:
    spelling = re.sub(r"[^a-z0-9]", "", cell.lower())
    if spelling in ("", "auto", "none"):
        return None
    if spelling not in DTYPES:
        raise _invalid_cell(column, cell, f"one of {', '.join(dict.fromkeys(DTYPES.values()))}")
    return DTYPES[spelling]


def _parse_number(column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell.replace(",", ""))
    except ValueError:
        raise _invalid_cell(column, cell, "a number or an empty cell") from None
    if not 0 <= value <= MAX_NUMBER:
        expected = f"a number from 0 to {MAX_NUMBER:,.0f} or an empty cell"
        raise _invalid_cell(column, cell, expected)
    return value


def _parse_length(column: str, cell: str) -> float | None:
    """Return the tokens of a prompt or an output; a mean may have a fraction."""
    value = _parse_number(column, cell)
    if value is not None and 0 < value < 1:
        raise _invalid_cell(column, cell, "a number of tokens or an empty cell")
    return value


def _parse_count(column: str, cell: str) -> int | None:
    if cell.lower() == "none":
        return None
    value = _parse_number(column, cell)
    if value is None:
        return None
    if value != int(value) or value < 1:
        raise _invalid_cell(column, cell, "a whole number of 1 or more or an empty cell")
    return int(value)


def _parse_expert_degree(cell: str) -> int | None:
    """Return the degree of expert parallelism; some tables write 0 for a degree of 1."""
    return 1 if cell in ("0", "0.0") else _parse_count("ep", cell)


def _parse_batch(cell: str) -> float | None:
    """Return the batch size; None for words such as ``max``, where the engine chose it."""
    if cell[:1].isalpha() and cell.lower() != "nan":
        return None
    value = _parse_number("batch", cell)
    if value == 0:
        raise _invalid_cell("batch", cell, "a number above zero, `max` or an empty cell")
    return value


def _parse_load(cell: str) -> tuple[float | None, float | None]:
    """Return the concurrency and the request rate of a cell: ``16``, ``inf``, ``qps=4``."""
    text = cell.lower().replace(" ", "")
    if not text:
        return None, None
    name, sign, value = text.rpartition("=")
    if sign and name not in ("qps", "rate", "rps", "concurrency"):
        raise _invalid_cell("concurrency", cell, "a number, `inf` or `qps=4`")
    if value in ("inf", "infinite", "max"):
        amount = math.inf
    else:
        amount = _parse_number("concurrency", value) or 0.0
        if amount <= 0:
            raise _invalid_cell("concurrency", cell, "a number above zero, `inf` or `qps=4`")
        if amount < 1 and name in ("", "concurrency"):
            raise _invalid_cell("concurrency", cell, "a number of 1 or more, `inf` or `qps=4`")
    return (None, amount) if name in ("qps", "rate", "rps") else (amount, None)


def _requests_in_notes(notes: str) -> float | None:
    """Return the number of requests that a note gives, if it gives one number."""
    numbers = _REQUESTS.findall(notes)
    return float(numbers[0].replace(",", "")) if len(numbers) == 1 and ".." not in notes else None


def _invalid_cell(column: str, cell: str, expected: str) -> ParframeError:
    what = f"invalid value {cell[:60]!r}"
    return ParframeError("usage", f"column {column}", what, f"use {expected}")

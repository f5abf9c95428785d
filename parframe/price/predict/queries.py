"""One row of a table of measurements, read as a question of what would be measured."""

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
"""The columns that are read; ``requests`` and ``notes`` are too, where they are there."""

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
"""Dtypes by how tables spell them, in small letters without marks."""

MOST = 1e9
"""No table has a larger number: what is larger is no length, no load and no count."""

_REQUESTS = re.compile(r"(?<![\d.])(\d[\d,]*) requests")


@attrs.frozen
class Question:
    """What a row asks; None stands for what it does not say.

    Parameters
    ----------
    model, gpu, framework
        Names as written.
    weights, cache
        Dtypes of weights and of the key-value cache.
    devices
        How many GPUs.
    tensor, pipeline, expert, data
        The parallelism.
    batch
        Requests that are given at once and served as a batch.
    concurrency
        Requests in flight; infinite where as many as can be.
    rate
        Requests offered a second, infinite for all at once.
    prompt, output
        Tokens of a request's prompt and answer.
    requests
        How many requests were sent in all.
    metric, unit
        What is asked, and in what.
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
    rate: float | None = None
    prompt: float | None = None
    output: float | None = None
    requests: float | None = None


def question(row: Mapping[str, str | None]) -> Question:
    """Read a row.

    Raises
    ------
    ParframeError
        Of kind `usage`, if a cell says something that cannot be understood.
    """
    cells = {name: (value or "").strip() for name, value in row.items() if name}
    concurrency, rate = _in_flight(cells.get("concurrency", ""))
    return Question(
        model=cells.get("model", ""),
        gpu=cells.get("gpu", ""),
        metric=cells.get("metric", ""),
        unit=cells.get("unit", ""),
        framework=cells.get("framework", ""),
        weights=_dtype("weight_dtype", cells.get("weight_dtype", "")),
        cache=_dtype("kv_dtype", cells.get("kv_dtype", "")),
        devices=_count("n_gpus", cells.get("n_gpus", "")),
        tensor=_count("tp", cells.get("tp", "")),
        pipeline=_count("pp", cells.get("pp", "")),
        expert=_expert_degree(cells.get("ep", "")),
        data=_count("dp", cells.get("dp", "")),
        batch=_batch(cells.get("batch", "")),
        concurrency=concurrency,
        rate=rate,
        prompt=_length("isl", cells.get("isl", "")),
        output=_length("osl", cells.get("osl", "")),
        requests=_number("requests", cells.get("requests", "")) or _noted(cells.get("notes", "")),
    )


def _dtype(column: str, cell: str) -> str | None:
    plain = re.sub(r"[^a-z0-9]", "", cell.lower())
    if plain in ("", "auto", "none"):
        return None
    if plain not in DTYPES:
        raise _cannot(column, cell, f"one of {', '.join(dict.fromkeys(DTYPES.values()))}")
    return DTYPES[plain]


def _number(column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell.replace(",", ""))
    except ValueError:
        raise _cannot(column, cell, "a number, or nothing") from None
    if not 0 <= value <= MOST:
        raise _cannot(column, cell, f"a number from 0 to {MOST:,.0f}, or nothing")
    return value


def _length(column: str, cell: str) -> float | None:
    """Tokens of a prompt or an answer; a mean may have a fraction."""
    value = _number(column, cell)
    if value is not None and 0 < value < 1:
        raise _cannot(column, cell, "a number of tokens, or nothing")
    return value


def _count(column: str, cell: str) -> int | None:
    if cell.lower() == "none":
        return None
    value = _number(column, cell)
    if value is None:
        return None
    if value != int(value) or value < 1:
        raise _cannot(column, cell, "a whole number of 1 or more, or nothing")
    return int(value)


def _expert_degree(cell: str) -> int | None:
    """Return the degree of expert parallelism; tables also write 0 for none, which is 1."""
    return 1 if cell in ("0", "0.0") else _count("ep", cell)


def _batch(cell: str) -> float | None:
    """Batch size; words such as ``max`` say that the engine filled it as it could."""
    if cell[:1].isalpha() and cell.lower() != "nan":
        return None
    value = _number("batch", cell)
    if value == 0:
        raise _cannot("batch", cell, "a number above zero, `max`, or nothing")
    return value


def _in_flight(cell: str) -> tuple[float | None, float | None]:
    """The concurrency and the offered rate that a cell says: ``16``, ``inf``, ``qps=4``."""
    text = cell.lower().replace(" ", "")
    if not text:
        return None, None
    name, sign, value = text.rpartition("=")
    if sign and name not in ("qps", "rate", "rps", "concurrency"):
        raise _cannot("concurrency", cell, "a number, `inf`, or `qps=4`")
    if value in ("inf", "infinite", "max"):
        amount = math.inf
    else:
        amount = _number("concurrency", value) or 0.0
        if amount <= 0:
            raise _cannot("concurrency", cell, "a number above zero, `inf`, or `qps=4`")
        if amount < 1 and name in ("", "concurrency"):
            raise _cannot("concurrency", cell, "at least 1, `inf`, or `qps=4`")
    return (None, amount) if name in ("qps", "rate", "rps") else (amount, None)


def _noted(notes: str) -> float | None:
    """How many requests a note says were sent, where it says one number."""
    found = _REQUESTS.findall(notes)
    return float(found[0].replace(",", "")) if len(found) == 1 and ".." not in notes else None


def _cannot(column: str, cell: str, wanted: str) -> ParframeError:
    return ParframeError(
        "usage", f"column {column}", f"{cell[:60]!r} is not understood", f"give {wanted}"
    )

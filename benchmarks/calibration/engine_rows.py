"""Tables of what engines were measured to do, read as rows of one form."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from parframe.errors import ParframeError
from parframe.price.predict.metrics import METRICS, metric_name, unit_size
from parframe.price.predict.queries import Query, parse_query

TABLES = (
    "trtllm_throughput_ifb.csv",
    "trtllm_static_batch.csv",
    "trtllm_online_v0.14.csv",
    "aic_silicon_sample_agg.csv",
    "gptfast.csv",
    "argonne_tp_pp_ep.csv",
    "argonne_all_gpu_latency.csv",
    "splitwise_ttft_tpot.csv",
)
"""Tables with the columns that `parframe predict` reads, and `value`."""

TRACES = "apex_e2e_vllm_sglang.csv"
"""A table of traces that were played at a rate of requests."""

RATES: Mapping[str, float] = {"025": 0.25, "05": 0.5}
"""Requests a second by the end of a trace's name."""


@attrs.frozen
class Measured:
    """A row that was measured.

    Parameters
    ----------
    table
        The file that it is from.
    asked
        What was measured.
    value
        In basic units: seconds, or a second, or bytes a second.
    id
        The row's id in its file.
    """

    table: str
    asked: Query
    value: float
    id: str = ""


def read_folder(folder: Path) -> list[Measured]:
    """Read all tables of a folder.

    Raises
    ------
    ParframeError
        Of kind `input`, if one is not there.
    """
    found = [row for name in TABLES for row in read_table(folder / name)]
    return found + list(_traces(folder / TRACES))


def read_table(path: Path) -> Iterator[Measured]:
    """Read a table that has the columns of `parframe predict`, and ``value``.

    Raises
    ------
    ParframeError
        Of kind `input`, if it is not there, or `usage`, if a cell is not understood.
    """
    for line in _lines(path):
        yield measured(path.name, line, float(line["value"]))


def measured(table: str, line: Mapping[str, str], value: float) -> Measured:
    """Return a line's figure in basic units."""
    asked = parse_query(line)
    unit = unit_size(asked.unit, METRICS[metric_name(asked.metric)])
    return Measured(table, asked, value * unit, line.get("id", ""))


def _traces(path: Path) -> Iterator[Measured]:
    """Mean times over a trace: its mean lengths stand for all."""
    for line in _lines(path):
        rate = RATES[line["trace"].rpartition("_")[2]]
        requests = float(line["requests"])
        common = {
            "id": line["id"],
            "model": line["model"],
            "weight_dtype": "fp8" if line["fp8"] == "True" else "bf16",
            "gpu": line["gpu"],
            "framework": line["engine"],
            "tp": line["tp"],
            "dp": line["dp"],
            "concurrency": f"qps={rate}",
            "isl": str(float(line["prompt_tokens"]) / requests),
            "osl": str(float(line["output_tokens"]) / requests),
            "unit": "s",
        }
        for metric, column in (("mean_ttft", "ttft_s"), ("mean_tpot", "tpot_s")):
            if metric == "mean_tpot" and line["engine"] != "vllm":
                continue  # the table's own note: another engine's column is no time of a token
            row = measured(path.name, {**common, "metric": metric}, float(line[column]))
            yield attrs.evolve(row, asked=attrs.evolve(row.asked, requests=requests))


def _lines(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise ParframeError(
            "input",
            str(path),
            "is not there, and engines are fitted to it",
            "give the folder of measurements",
        )
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)

"""Metrics and units of tables of measurements, computed from the result of a load."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.price.cost.estimate import Estimate
from parframe.price.predict.load_results import LoadResult

MetricKind = Literal["throughput", "tpot", "ttft", "e2e_latency"]
"""Kind of a metric: metrics of one kind have the same prediction error."""


@attrs.frozen
class Metric:
    """Metric of a table, with its default unit, and its function of the result of a load."""

    kind: MetricKind
    unit: str
    compute: Callable[[LoadResult], Estimate]


def _ttft(result: LoadResult) -> Estimate:
    if result.ttft is None:
        raise ParframeError(
            "usage",
            "metric ttft",
            "is not defined at maximum load, because the queue grows without end",
            "set a concurrency, or a request rate and the number of requests",
        )
    return result.ttft


METRICS: Mapping[str, Metric] = {
    "output_tokens_per_s_total": Metric(
        "throughput", "tokens/s", lambda r: r.request_rate * r.output
    ),
    "output_tokens_per_s_per_gpu": Metric(
        "throughput", "tokens/s", lambda r: r.request_rate * (r.output / r.devices)
    ),
    "total_tokens_per_s": Metric(
        "throughput", "tokens/s", lambda r: r.request_rate * (r.prompt + r.output)
    ),
    "total_tokens_per_s_per_gpu": Metric(
        "throughput", "tokens/s", lambda r: r.request_rate * ((r.prompt + r.output) / r.devices)
    ),
    "requests_per_s": Metric("throughput", "req/s", lambda r: r.request_rate),
    "decode_tokens_per_s": Metric("tpot", "tokens/s", lambda r: r.tpot.rate(r.sequences)),
    "prefill_tokens_per_s": Metric(
        "ttft", "tokens/s", lambda r: _ttft(r).rate(r.sequences * r.prompt)
    ),
    "output_tokens_per_s_per_user": Metric("tpot", "tokens/s", lambda r: r.tpot.rate(1.0)),
    "achieved_mem_bw_per_gpu": Metric("tpot", "GB/s", lambda r: r.tpot.rate(r.read_bytes)),
    "ttft": Metric("ttft", "s", _ttft),
    "tpot": Metric("tpot", "s", lambda r: r.tpot),
    "e2e_latency": Metric("e2e_latency", "s", lambda r: r.e2e_latency),
}
"""Metrics by name, in seconds, tokens or requests per second, or bytes per second."""

ALIASES: Mapping[str, str] = {
    "throughput": "output_tokens_per_s_total",
    "output_throughput": "output_tokens_per_s_total",
    "output_tokens_per_s": "output_tokens_per_s_total",
    "tokens_per_s": "output_tokens_per_s_total",
    "generation_throughput": "output_tokens_per_s_total",
    "tokens_per_s_per_gpu": "output_tokens_per_s_per_gpu",
    "total_throughput": "total_tokens_per_s",
    "request_throughput": "requests_per_s",
    "tokens_per_s_per_user": "output_tokens_per_s_per_user",
    "prefill_latency": "ttft",
    "time_to_first_token": "ttft",
    "itl": "tpot",
    "inter_token_latency": "tpot",
    "time_per_output_token": "tpot",
    "decode_latency": "tpot",
    "token_latency": "tpot",
    "latency": "e2e_latency",
    "total_latency": "e2e_latency",
    "request_latency": "e2e_latency",
}
"""Other names of metrics; a prefix ``mean_``, ``median_``, ``avg_`` or ``p50_`` is ignored."""

UNITS: Mapping[str, float] = {
    "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6,
    "tokens/s": 1.0, "tok/s": 1.0, "tokens/s/gpu": 1.0, "tok/s/gpu": 1.0, "tokens/s/user": 1.0,
    "req/s": 1.0, "requests/s": 1.0,
    "gb/s": 1e9, "tb/s": 1e12, "b/s": 1.0,
}  # fmt: skip
"""Size of each unit in seconds, tokens or requests per second, or bytes per second."""


def metric_name(name: str) -> str:
    """Return the metric that a name refers to.

    Raises
    ------
    ParframeError
        Of kind `usage`, if there is no metric of this name.
    """
    normalized = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
    normalized = re.sub(r"^(mean|median|avg|average|p50)_", "", normalized)
    normalized = ALIASES.get(normalized, normalized)
    if normalized in METRICS:
        return normalized
    raise ParframeError(
        "usage",
        "column metric",
        f"unknown metric {name[:60]!r}{did_you_mean(normalized, METRICS)}",
        f"use one of {', '.join(METRICS)}",
    )


def unit_size(unit: str, metric: Metric) -> float:
    """Return the size of a row's unit, or of the metric's default unit, in base units.

    Raises
    ------
    ParframeError
        Of kind `usage`, if it is not a unit of this metric.
    """
    normalized = (unit or metric.unit).strip().lower().replace(" ", "")
    times = {"s", "sec", "seconds", "ms", "us"}
    traffic = {"gb/s", "tb/s", "b/s"}
    default = metric.unit.lower()
    rates = set(UNITS) - times - traffic
    units = next((family for family in (times, traffic) if default in family), rates)
    if normalized not in units:
        raise ParframeError(
            "usage",
            "column unit",
            f"{unit[:30]!r} is not a unit of this metric",
            f"use {metric.unit}",
        )
    return UNITS[normalized]

"""Predictions of the rows of a table, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from parframe.errors import ParframeError
from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.predict.load_results import LoadResult, predict_load
from parframe.price.predict.metrics import METRICS, Metric, MetricKind, metric_name, unit_size
from parframe.price.predict.prediction_intervals import with_engine_error
from parframe.price.predict.queries import Query, parse_query
from parframe.price.predict.query_resolution import Registry, ResolvedQuery, resolve_query

ADDED_COLUMNS = ("predicted", "low", "high", "why")
"""Columns that a prediction adds to its row."""

NEEDED_LENGTHS: Mapping[MetricKind, tuple[str, ...]] = {
    "tpot": (), "ttft": ("isl",), "throughput": ("isl", "osl"), "e2e_latency": ("isl", "osl"),
}  # fmt: skip
"""Lengths that a metric needs in a static batch; all other loads need both."""


@attrs.frozen
class Prediction:
    """Prediction of a row in the row's unit: median, and ends of the 80 % interval.

    ``why`` has notes on assumptions and limits. The value is None where the row cannot be
    predicted; ``why`` has the reason then.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


def predict_row(row: Mapping[str, str | None], registry: Registry) -> Prediction:
    """Predict a row, or give the reason why it cannot be predicted."""
    try:
        return predict_query(parse_query(row), registry)
    except ParframeError as error:
        what, hint = (text.partition("\n")[0] for text in (error.what, error.hint))
        return Prediction(None, why=f"{error.where}: {what}; {hint}")


def predict_query(query: Query, registry: Registry) -> Prediction:
    """Predict the metric of a query.

    Raises
    ------
    ParframeError
        If the query cannot be predicted.
    """
    metric = METRICS[metric_name(query.metric)]
    size = unit_size(query.unit, metric)
    resolved = resolve_query(query, registry)
    result = predict_instances(query, resolved)
    kernel_estimate = _compute_metric(metric, result)
    estimate = with_engine_error(
        metric.kind, kernel_estimate, resolved.deployment, resolved.model, resolved.device
    )
    if result.keeps_up and metric.kind == "throughput":
        # The throughput of a load that the engine keeps up with is that of the load.
        estimate = attrs.evolve(estimate, log_std=kernel_estimate.log_std)
    low, high = estimate.interval()
    why = "; ".join(merge_notes(resolved.notes, estimate.notes))
    return Prediction(estimate.value / size, low / size, high / size, why)


def estimate_query(query: Query, resolved: ResolvedQuery) -> Estimate:
    """Return the metric of a query in base units, with the error of kernels alone."""
    return _compute_metric(METRICS[metric_name(query.metric)], predict_instances(query, resolved))


def predict_instances(query: Query, resolved: ResolvedQuery) -> LoadResult:
    """Return the result of a query's load over all instances together."""
    if resolved.instances > 1:
        query = _load_of_one_instance(query, resolved.instances)
    kind = METRICS[metric_name(query.metric)].kind
    result = predict_load(
        query, resolved.deployment, resolved.devices, NEEDED_LENGTHS[kind], kind == "throughput"
    )
    return attrs.evolve(
        result,
        request_rate=result.request_rate * resolved.instances,
        sequences=result.sequences * resolved.instances,
    )


def _compute_metric(metric: Metric, result: LoadResult) -> Estimate:
    estimate = metric.compute(result)
    if not math.isfinite(estimate.value) or estimate.value <= 0:
        raise ParframeError(
            "usage",
            "the row",
            "its metric is zero or infinite under this load",
            "set isl, osl and a batch or concurrency above zero",
        )
    return estimate


def _load_of_one_instance(query: Query, instances: int) -> Query:
    """Return the part of the load that one of several instances serves."""
    parts = {
        name: getattr(query, name) / instances
        for name in ("batch", "concurrency", "request_rate", "requests")
        if getattr(query, name) is not None
    }
    for name in ("batch", "concurrency"):
        if name in parts:
            parts[name] = max(parts[name], 1.0)
    return attrs.evolve(query, **parts)

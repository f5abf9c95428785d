"""Rows of a table of measurements in; what would be measured, and how surely, out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import attrs

from parframe.errors import ParframeError
from parframe.price.cost.estimate import Estimate, joined
from parframe.price.predict.metrics import METRICS, Metric, Seen, metric_name, seen, unit_size
from parframe.price.predict.prediction_intervals import judged
from parframe.price.predict.queries import Question, question
from parframe.price.predict.query_resolution import Basis, Concrete, concrete

ADDED = ("predicted", "low", "high", "why")
"""The columns that a prediction adds."""


@attrs.frozen
class Prediction:
    """What a row is predicted to measure, in its own unit.

    Parameters
    ----------
    value
        None where there is no basis.
    low, high
        Between which 80 % of outcomes are expected to lie.
    why
        What was assumed and what decides; where there is no value, why not.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


def predict_rows(
    rows: Iterable[Mapping[str, str | None]], basis: Basis
) -> Iterator[tuple[Mapping[str, str | None], Prediction]]:
    """Predict each row of a table."""
    for row in rows:
        yield row, predict_row(row, basis)


def predict_row(row: Mapping[str, str | None], basis: Basis) -> Prediction:
    """Predict a row, or tell why there is no basis to."""
    try:
        return predict(question(row), basis)
    except ParframeError as error:
        what, hint = (text.partition("\n")[0] for text in (error.what, error.hint))
        return Prediction(None, why=f"{error.where}: {what}; {hint}")


def predict(asked: Question, basis: Basis) -> Prediction:
    """Predict what a question asks.

    Raises
    ------
    ParframeError
        If there is no basis.
    """
    metric = METRICS[metric_name(asked.metric)]
    size = unit_size(asked.unit, metric)
    found = concrete(asked, basis)
    view = viewed(asked, found)
    own = _of(metric, view)
    estimate = judged(metric.kind, own, found.deployment, found.model, found.device)
    if view.offered and metric.kind == "rate":
        # How much is answered of a load that is kept up with, the load says and not the engine.
        estimate = attrs.evolve(estimate, log_std=own.log_std)
    low, high = estimate.interval()
    why = "; ".join(joined(found.why, estimate.notes))
    return Prediction(estimate.value / size, low / size, high / size, why)


def estimated(asked: Question, found: Concrete) -> Estimate:
    """Return what a question asks in basic units, with the doubt of kernels and exchanges alone."""
    return _of(METRICS[metric_name(asked.metric)], viewed(asked, found))


def viewed(asked: Question, found: Concrete) -> Seen:
    """Return what a client sees of all instances together."""
    if found.instances > 1:
        asked = _of_one(asked, found.instances)
    view = seen(asked, found.deployment, found.devices)
    return attrs.evolve(view, rate=view.rate * found.instances, rows=view.rows * found.instances)


def _of(metric: Metric, view: Seen) -> Estimate:
    estimate = metric.of(view)
    if not math.isfinite(estimate.value) or estimate.value <= 0:
        raise ParframeError(
            "usage",
            "the row",
            "what it says gives nothing to predict",
            "give isl, osl and a batch or concurrency above zero",
        )
    return estimate


def _of_one(asked: Question, instances: int) -> Question:
    """The part of the load that one of several instances has."""
    parts = {
        name: getattr(asked, name) / instances
        for name in ("batch", "concurrency", "rate", "requests")
        if getattr(asked, name) is not None
    }
    for name in ("batch", "concurrency"):
        if name in parts:
            parts[name] = max(parts[name], 1.0)
    return attrs.evolve(asked, **parts)

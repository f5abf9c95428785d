"""Rows of a table of measurements in; what would be measured, and how surely, out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import NormalDist

import attrs

from parframe.errors import ParframeError
from parframe.price.asking import Question, question
from parframe.price.basis import Basis, Concrete, concrete
from parframe.price.engines import Engine
from parframe.price.estimate import Estimate, joined
from parframe.price.metrics import METRICS, Kind, Metric, Seen, metric_name, seen, unit_size
from parframe.price.work import Experts

UNKNOWN = 0.4
"""The spread of an engine's figures where none is fitted."""

UNMEASURED = {
    "pipelines": 0.2,
    "experts": 0.15,
    "such figures": 0.15,
}
"""The further spread of what no row of an engine tells: how its pipeline stages overlap, how its
kernels of experts compare, or any figure of a kind. Nothing is fitted here: these are judged."""

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
        return Prediction(None, why=f"{error.where}: {error.what}; {error.mend}")


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
    estimate = _of(metric, view)
    spread = estimate.spread
    if not (view.offered and metric.kind == "rate"):
        # How much is answered of a load that is kept up with, the load says and not the engine.
        spread = math.hypot(beyond(spread, found.deployment.engine), spread_of(metric.kind, found))
    reach = math.exp(NormalDist().inv_cdf(0.9) * spread)
    value = estimate.value / size
    return Prediction(
        value, value / reach, value * reach, "; ".join(_why(metric.kind, estimate, found))
    )


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


def beyond(doubt: float, own: Engine) -> float:
    """Return what kernels and exchanges leave open beyond what an engine's own rows had."""
    return math.sqrt(max(doubt**2 - own.doubt**2, 0.0))


def spread_of(kind: Kind, found: Concrete) -> float:
    """Return the spread of the engine's own figures: wider with what it was not fitted to."""
    own: Engine = found.deployment.engine
    spread = own.spread.get(kind, max(own.spread.values(), default=UNKNOWN))
    if found.model not in own.models:
        spread = math.hypot(spread, own.other_model)
    if found.device not in own.devices:
        spread = math.hypot(spread, own.other_device)
    return math.hypot(spread, *(UNMEASURED[name] for name in unmeasured(kind, found)))


def unmeasured(kind: Kind, found: Concrete) -> list[str]:
    """Return what a row asks that no row of its engine tells."""
    own, work = found.deployment.engine, found.deployment.work
    kernels = (kernel for stage in work.stages for kernel in stage.kernels)
    lacking = {
        "pipelines": len(work.stages) > 1 and "overlap" not in own.fitted,
        "experts": "experts" not in own.fitted
        and any(isinstance(kernel, Experts) for kernel in kernels),
        "such figures": bool(own.spread) and kind not in own.spread,
    }
    return [name for name, lacks in lacking.items() if lacks]


def _why(kind: Kind, estimate: Estimate, found: Concrete) -> tuple[str, ...]:
    own = found.deployment.engine
    new = [
        f"no rows of {own.name} {where} {name}"
        for where, name, seen_before in (
            ("with", found.model, own.models),
            ("on", found.device, own.devices),
        )
        if own.known and name not in seen_before
    ]
    new += [f"no rows of {own.name} tell of {name}" for name in unmeasured(kind, found)]
    return joined(found.why, tuple(new), estimate.why)

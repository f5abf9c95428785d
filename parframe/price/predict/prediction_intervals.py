"""Prediction intervals: errors of an engine's fitted rows, and more for what was not measured."""

from __future__ import annotations

import math

from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.predict.metrics import MetricKind
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.engines import Engine
from parframe.price.work.work import Experts

UNFITTED_ERROR = 0.4
"""Error of an engine for which none is fitted."""

UNMEASURED_ERRORS = {"pipeline parallelism": 0.2, "experts": 0.15, "this metric": 0.15}
"""Additional error for what was not measured on an engine: overlap of pipeline stages, expert
kernels, or a kind of metric. These are assumed, not fitted."""


def with_engine_error(
    kind: MetricKind, estimate: Estimate, deployment: Deployment, model: str, device: str
) -> Estimate:
    """Return an estimate with the error of its engine's predictions, and notes on what widens it.

    The given estimate has the error of kernels and communication alone. The model has its usual
    name, the device its key.
    """
    kernel_error = excess_kernel_error(estimate.log_std, deployment.engine)
    spread = math.hypot(kernel_error, engine_error(kind, deployment, model, device))
    why = merge_notes(_unmeasured_notes(kind, deployment, model, device), estimate.notes)
    return Estimate(estimate.value, spread, why)


def excess_kernel_error(error: float, engine: Engine) -> float:
    """Return the error of kernels beyond that of the rows that the engine was fitted to."""
    return math.sqrt(max(error**2 - engine.kernel_error**2, 0.0))


def engine_error(kind: MetricKind, deployment: Deployment, model: str, device: str) -> float:
    """Return the error of an engine's predictions; larger for what it was not fitted to."""
    engine = deployment.engine
    error = engine.residual.get(kind, max(engine.residual.values(), default=UNFITTED_ERROR))
    if model not in engine.fitted_models:
        error = math.hypot(error, engine.unseen_model)
    if device not in engine.fitted_devices:
        error = math.hypot(error, engine.unseen_device)
    unmeasured = _unmeasured(kind, deployment)
    return math.hypot(error, *(UNMEASURED_ERRORS[name] for name in unmeasured))


def _unmeasured(kind: MetricKind, deployment: Deployment) -> list[str]:
    """Return which of `UNMEASURED_ERRORS` apply."""
    engine, work = deployment.engine, deployment.work
    kernels = (kernel for stage in work.stages for kernel in stage.kernels)
    applies = {
        "pipeline parallelism": len(work.stages) > 1 and "stage_overlap" not in engine.fitted,
        "experts": "experts" not in engine.fitted
        and any(isinstance(kernel, Experts) for kernel in kernels),
        "this metric": bool(engine.residual) and kind not in engine.residual,
    }
    return [name for name, applied in applies.items() if applied]


def _unmeasured_notes(
    kind: MetricKind, deployment: Deployment, model: str, device: str
) -> tuple[str, ...]:
    engine = deployment.engine
    unseen = [
        f"{engine.name} was not measured {preposition} {name}"
        for preposition, name, measured in (
            ("with", model, engine.fitted_models),
            ("on", device, engine.fitted_devices),
        )
        if engine.measured and name not in measured
    ]
    unmeasured = (
        f"{'median' if not engine.measured else engine.name} engine: {name} was not measured"
        for name in _unmeasured(kind, deployment)
    )
    return (*unseen, *unmeasured)

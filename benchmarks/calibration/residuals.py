"""Errors of predictions of engines out of sample, from which intervals are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import attrs
import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.engine_fit import Case
from parframe.errors import ParframeError
from parframe.price.predict.metrics import METRICS, MetricKind, metric_name
from parframe.price.predict.predictions import estimate_query
from parframe.price.serving.engines import Engine

Floats = NDArray[np.float64]

SHARE = 0.8
"""Share of the outcomes that an interval contains."""

LEAST = 0.02
"""Smallest standard deviation of the logarithm that is fitted to rows."""


def kinds(some: Sequence[Case]) -> NDArray[np.str_]:
    """Return the kind of metric of each row."""
    return np.array([kind_of(case) for case in some])


def kind_of(case: Case) -> MetricKind:
    """Return the kind of metric of a row."""
    return METRICS[metric_name(case.measured.asked.metric)].kind


def kernel_errors(some: Sequence[Case], engine: Engine) -> Floats:
    """Return the error of each row's kernels and collectives alone, in an engine."""
    return np.array([_kernel_error(case, engine) for case in some])


def _kernel_error(case: Case, engine: Engine) -> float:
    deployment = attrs.evolve(case.found.deployment, engine=engine)
    try:
        found = attrs.evolve(case.found, deployment=deployment)
        return estimate_query(case.measured.asked, found).log_std
    except ParframeError:
        return 0.0


def spread(off: Floats, other: Floats, weights: Floats | None = None) -> float:
    """Return the error with which intervals contain their share of the rows.

    Parameters
    ----------
    off
        Errors as logarithms, NaN for what was not predicted.
    other
        The error of each row from other causes, taken as independent.
    weights
        Weight of each row.
    """
    kept = ~np.isnan(off)
    if not kept.any():
        return LEAST
    off, other = np.abs(off[kept]), other[kept]
    counted = np.ones(len(off)) if weights is None else weights[kept]
    reach = NormalDist().inv_cdf((1 + SHARE) / 2)
    low, high = LEAST, 4.0
    for _ in range(40):
        middle = (low + high) / 2
        inside = counted[off <= reach * np.hypot(other, middle)].sum() / counted.sum()
        low, high = (low, middle) if inside >= SHARE else (middle, high)
    return float(high)


def by_kind(off: Floats, some: Sequence[Case], other: Floats) -> dict[str, float]:
    """Return the error of each kind of metric among the rows."""
    kind = kinds(some)
    return {str(one): spread(off[kind == one], other[kind == one]) for one in dict.fromkeys(kind)}


def combined_errors(
    some: Sequence[Case], known: Mapping[str, float], usual: float, own: Floats
) -> Floats:
    """Return the error of each row: that of its kind, and the excess of its kernels' error."""
    further = np.sqrt(np.maximum(own**2 - usual**2, 0.0))
    found: Floats = np.hypot(further, np.array([known[kind_of(case)] for case in some]))
    return found

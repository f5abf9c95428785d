"""How far off predictions of engines are, out of sample: the spread that makes intervals hold."""

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
"""Of the outcomes that an interval is to hold."""

LEAST = 0.02
"""The smallest spread that rows are trusted to tell."""


def kinds(some: Sequence[Case]) -> NDArray[np.str_]:
    """Return what kind of figure each row is."""
    return np.array([kind_of(case) for case in some])


def kind_of(case: Case) -> MetricKind:
    """Return what kind of figure a row is."""
    return METRICS[metric_name(case.measured.asked.metric)].kind


def doubts(some: Sequence[Case], engine: Engine) -> Floats:
    """Return the spread that each row's kernels and exchanges have by themselves, in an engine."""
    return np.array([_doubt(case, engine) for case in some])


def _doubt(case: Case, engine: Engine) -> float:
    deployment = attrs.evolve(case.found.deployment, engine=engine)
    try:
        found = attrs.evolve(case.found, deployment=deployment)
        return estimate_query(case.measured.asked, found).log_std
    except ParframeError:
        return 0.0


def spread(off: Floats, beside: Floats, weights: Floats | None = None) -> float:
    """Return the spread with which intervals hold the errors that they should.

    Parameters
    ----------
    off
        Errors as logarithms, NaN for what was not predicted.
    beside
        The spread that each has from elsewhere, taken as independent.
    weights
        How much each row counts.
    """
    kept = ~np.isnan(off)
    if not kept.any():
        return LEAST
    off, beside = np.abs(off[kept]), beside[kept]
    counted = np.ones(len(off)) if weights is None else weights[kept]
    reach = NormalDist().inv_cdf((1 + SHARE) / 2)
    low, high = LEAST, 4.0
    for _ in range(40):
        middle = (low + high) / 2
        held = counted[off <= reach * np.hypot(beside, middle)].sum() / counted.sum()
        low, high = (low, middle) if held >= SHARE else (middle, high)
    return float(high)


def by_kind(off: Floats, some: Sequence[Case], beside: Floats) -> dict[str, float]:
    """Return the spread of each kind of figure that there are rows of."""
    kind = kinds(some)
    return {str(one): spread(off[kind == one], beside[kind == one]) for one in dict.fromkeys(kind)}


def beside_of(
    some: Sequence[Case], known: Mapping[str, float], doubt: float, own: Floats
) -> Floats:
    """Return the spread of each row: that of its kind, and what its kernels have beyond usual."""
    further = np.sqrt(np.maximum(own**2 - doubt**2, 0.0))
    found: Floats = np.hypot(further, np.array([known[kind_of(case)] for case in some]))
    return found

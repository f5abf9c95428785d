"""The constants of engines, fitted to rows that were measured on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.engine_rows import Measured
from parframe.errors import ParframeError
from parframe.price.predict.metrics import METRICS, metric_name
from parframe.price.predict.predictions import estimate_query
from parframe.price.predict.query_resolution import Registry, ResolvedQuery, resolve_query
from parframe.price.serving.engines import Engine

USUAL: Mapping[str, tuple[float, float, float, float]] = {
    "matmul": (0.9, 0.2, 0.5, 2.5),
    "experts": (1.0, 0.2, 0.5, 2.5),
    "attention": (0.9, 0.2, 0.4, 3.0),
    "communication": (1.0, 0.5, 0.3, 6.0),
    "kv_reread": (0.05, 1.5, 1e-3, 1.0),
    "step_overhead": (5e-4, 1.5, 1e-6, 5e-2),
    "layer_overhead": (1e-5, 1.5, 1e-7, 1e-3),
    "sequence_overhead": (2e-6, 1.5, 1e-8, 1e-3),
    "launch_overhead": (1e-4, 1.5, 1e-6, 1e-2),
    "stage_overlap": (0.5, 1.0, 0.01, 1.0),
    "reserved_bytes": (2e9, 0.4, 2e8, 8e9),
    "request_overhead": (1e-3, 1.5, 1e-5, 1e-1),
    "admission_wait": (0.3, 1.0, 1e-3, 3.0),
    "prefill_burst": (0.05, 1.0, 1e-4, 1.0),
}
"""Prior of each constant, before any row is seen: its center, the standard deviation of its
logarithm, and its bounds. Rows must outweigh it."""

DERIVED = ("achieved_mem_bw_per_gpu",)
"""Metrics that say what another row of the same run says, times what one counts as read."""

NOISE = 0.08
"""The error of a row, as a logarithm, up to which it is no outlier."""


@attrs.frozen
class Case:
    """A measured row with what it names."""

    measured: Measured
    found: ResolvedQuery


def cases(rows: Sequence[Measured], registry: Registry) -> list[Case]:
    """Return the rows that say enough to be predicted, and whose figure is the engine's doing.

    How many requests are answered a second is what was offered, where that is less than can be.
    """
    found = []
    for row in rows:
        offered = row.asked.request_rate is not None and row.asked.request_rate < math.inf
        if offered and METRICS[metric_name(row.asked.metric)].kind == "throughput":
            continue
        try:
            found.append(Case(row, resolve_query(row.asked, registry)))
        except ParframeError:
            continue
    return found


def errors(some: Sequence[Case], engine: Engine) -> NDArray[np.float64]:
    """Return the logarithm of predicted over measured, NaN where nothing is predicted."""
    return np.array([_error(case, engine) for case in some])


def _error(case: Case, engine: Engine) -> float:
    deployment = attrs.evolve(case.found.deployment, engine=engine)
    try:
        found = estimate_query(case.measured.asked, attrs.evolve(case.found, deployment=deployment))
    except ParframeError:
        return math.nan
    return math.log(found.value / case.measured.value)


def fit(some: Sequence[Case], start: Engine, free: Sequence[str]) -> Engine:
    """Return the engine whose ``free`` constants agree best with rows, and with what is usual.

    The logarithms of the constants are sought by least squares of the rows' logarithms, with a
    loss that forgives outliers (Huber's kind); what is usual counts as a row for each constant.
    """
    some = [case for case in some if metric_name(case.measured.asked.metric) not in DERIVED]
    if not some or not free:
        return start
    from scipy.optimize import least_squares

    middle = np.log([USUAL[name][0] for name in free])
    width = np.array([USUAL[name][1] for name in free])
    low, high = (np.log([USUAL[name][place] for name in free]) for place in (2, 3))

    def constants(point: NDArray[np.float64]) -> Engine:
        return start.with_constants(dict(zip(free, np.exp(point).tolist(), strict=True)))

    def residuals(point: NDArray[np.float64]) -> NDArray[np.float64]:
        off = np.nan_to_num(errors(some, constants(point)), nan=1.0) / NOISE
        robust = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))
        return np.concatenate([robust, (point - middle) / width])

    found = least_squares(
        residuals,
        np.clip(middle, low, high),
        bounds=(low, high),
        diff_step=0.01,
        max_nfev=20,
        x_scale=width,
    )
    return constants(found.x)


Split = Callable[[Case], Hashable]
"""Groups that a row is left out with: its model, its device."""


def left_out(
    some: Sequence[Case],
    start: Engine,
    free: Sequence[str],
    by: Split,
    retimed: Callable[[Hashable], Sequence[Case]] | None = None,
) -> NDArray[np.float64]:
    """Return each row's error when those that share its group are not fitted to.

    Parameters
    ----------
    retimed
        Gives the cases anew with the kernel times of a group left out as well.
    """
    groups = [by(case) for case in some]
    off = np.full(len(some), np.nan)
    for group in dict.fromkeys(groups):
        inside = [place for place, own in enumerate(groups) if own == group]
        others = [case for case, own in zip(some, groups, strict=True) if own != group]
        engine = fit(others, start, free)
        seen = retimed(group) if retimed else some
        off[inside] = errors([seen[place] for place in inside], engine)
    return off

"""Fit of the constants of collectives to measured times, and errors of the fit."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

import attrs

from benchmarks.calibration.collective_constants import begin, constants_of, names_of
from benchmarks.calibration.collective_rows import Row, read_rows
from parframe.price.cost.collective_model import CollectiveConstants
from parframe.price.cost.communication_times import (
    EAGER_SUFFIX,
    CollectiveErrors,
    FittedCollectives,
    collective_seconds,
    write,
)

_SOFT, _TOWARDS, _REACH = 0.1, 0.01, 3.5


@attrs.frozen
class Error:
    """Relative errors of predictions for a group of rows.

    Parameters
    ----------
    device, machine, kind, implementation, source
        Properties that the rows have in common.
    rows
        Number of rows.
    median, mean
        Median and mean of absolute errors.
    bias
        Median of signed errors.
    """

    device: str
    machine: str
    kind: str
    implementation: str
    source: str
    rows: int
    median: float
    mean: float
    bias: float


def fit(rows: Sequence[Row]) -> FittedCollectives:
    """Fit all constants to rows.

    Parameters
    ----------
    rows
        Rows of `read_rows`, or a part of them.

    Returns
    -------
    FittedCollectives
        Constants with in-sample errors. `fit_with_held_out_errors` adds the errors for links that
        were not measured, by holding out one device at a time.
    """
    inside = [row for row in rows if row.fits and row.within]
    outside = [row for row in rows if row.fits and not row.within]
    near = _near(inside)
    return _fitted(inside, outside, {**near, **_far(outside, near)})


def _near(inside: Sequence[Row]) -> dict[str, float]:
    """Fit the constants that rows within nodes determine."""
    return _solved(inside, names_of(inside), {})


def _far(outside: Sequence[Row], near: Mapping[str, float]) -> dict[str, float]:
    """Fit the constants that rows between nodes determine, with all others given."""
    networks = sorted({row.network for row in outside})
    names = [f"networks.{network}.{word}" for network in networks for word in ("step", "share")]
    return _solved(outside, names, near)


def _fitted(
    inside: Sequence[Row], outside: Sequence[Row], numbers: Mapping[str, float]
) -> FittedCollectives:
    """Return constants with their errors and sources."""
    constants = constants_of(numbers)
    return FittedCollectives(
        constants=constants,
        log_std=CollectiveErrors(
            measured=_by(inside, lambda row: row.implementation, constants),
            network=_by(outside, lambda row: row.network, constants),
            link=0.3,
            pcie=1.0,
            other_network=1.0,
            larger_group=0.2,
        ),
        devices=tuple(
            sorted({r.machine.device.key for r in inside if r.group.span.reach == "link"})
        ),
        max_ranks=max((row.group.span.ranks for row in inside), default=1),
        sources=dict(Counter(row.source for row in (*inside, *outside))),
    )


def fit_with_held_out_errors(rows: Sequence[Row]) -> FittedCollectives:
    """Fit all constants, with the errors for unmeasured hardware from held-out devices."""
    found = fit(rows)
    graphs = [row for row in rows if not row.implementation.endswith(EAGER_SUFFIX)]
    left = [(row, math.log(ratio)) for row, ratio in held_out_ratios(graphs)]
    far = [(row, math.log(ratio)) for row, ratio in held_out_network_ratios(rows)]
    fast = _quantile([off for row, off in far if row.network == "InfiniBand"])
    errors_found = attrs.evolve(
        found.log_std,
        network={**found.log_std.network, "InfiniBand": fast},
        link=_quantile([off for row, off in left if row.group.span.reach == "link"]),
        pcie=_quantile([off for row, off in left if row.group.span.reach == "pcie"]),
        other_network=_quantile([off for row, off in far if row.network != "InfiniBand"]),
    )
    return attrs.evolve(found, log_std=errors_found)


def rebuild(folder: Path) -> str:
    """Return the text of the data file of collectives from a folder of tables."""
    return json.dumps(write(fit_with_held_out_errors(read_rows(folder))), indent=1) + "\n"


def held_out_ratios(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return the ratios of predicted to measured times within nodes, each device held out."""
    inside = [row for row in rows if row.within]
    found: list[tuple[Row, float]] = []
    for device in dict.fromkeys(row.machine.device.key for row in inside):
        constants = fit([row for row in rows if row.machine.device.key != device]).constants
        own = [row for row in inside if row.machine.device.key == device and row.fits]
        found += [(row, predicted(row, constants) / row.seconds) for row in own]
    return found


def held_out_network_ratios(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return the ratios of predicted to measured times between nodes, each cluster held out."""
    found: list[tuple[Row, float]] = []
    outside = [row for row in rows if not row.within and row.fits]
    near = _near([row for row in rows if row.within and row.fits])
    for cluster in dict.fromkeys((row.source, row.machine.key) for row in outside):
        own = [row for row in outside if (row.source, row.machine.key) == cluster]
        kept = [row for row in outside if (row.source, row.machine.key) != cluster]
        found += ratios(own, constants_of({**near, **_far(kept, near)}))
    return found


def errors(pairs: Iterable[tuple[Row, float]]) -> list[Error]:
    """Return the errors for each device, kind, implementation and table.

    Parameters
    ----------
    pairs
        Rows with the ratio of predicted to measured time, from `held_out_ratios` or `ratios`.
    """
    groups: dict[tuple[str, str, str, str, str], list[float]] = {}
    for row, ratio in pairs:
        key = (row.machine.device.key, row.machine.key, row.kind, row.implementation, row.source)
        groups.setdefault(key, []).append(ratio - 1)
    return [
        Error(*key, len(off), median(map(abs, off)), fmean(map(abs, off)), median(off))
        for key, off in sorted(groups.items())
    ]


def ratios(rows: Iterable[Row], constants: CollectiveConstants) -> list[tuple[Row, float]]:
    """Return rows with the ratio of predicted to measured time."""
    return [(row, predicted(row, constants) / row.seconds) for row in rows]


def predicted(row: Row, constants: CollectiveConstants) -> float:
    """Return the predicted seconds of a row."""
    return collective_seconds(row.kind, row.size, row.group, row.implementation, constants)


def _solved(
    rows: Sequence[Row], names: Sequence[str], given: Mapping[str, float]
) -> dict[str, float]:
    """Fit named constants to the logarithms of rows with a robust loss, with others given."""
    if not rows or not names:
        return {}
    import numpy
    from scipy.optimize import least_squares

    first = numpy.log([begin(name) for name in names])
    measured = [math.log(row.seconds) for row in rows]

    def off(x: numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]) -> list[float]:
        constants = constants_of({**given, **dict(zip(names, numpy.exp(x).tolist(), strict=True))})
        found = [math.log(predicted(r, constants)) - m for r, m in zip(rows, measured, strict=True)]
        return [*found, *(_TOWARDS * (x - first)).tolist()]

    bounds = (first - _REACH, first + _REACH)
    solved = least_squares(off, first, loss="soft_l1", f_scale=_SOFT, bounds=bounds, max_nfev=40)
    return dict(zip(names, numpy.exp(solved.x).tolist(), strict=True))


def _by(
    rows: Sequence[Row], name: Callable[[Row], str], constants: CollectiveConstants
) -> dict[str, float]:
    """Return the error of rows by a property."""
    names = dict.fromkeys(map(name, rows))
    return {one: _log_std([row for row in rows if name(row) == one], constants) for one in names}


def _log_std(rows: Sequence[Row], constants: CollectiveConstants) -> float:
    return _quantile([math.log(ratio) for _, ratio in ratios(rows, constants)])


def _quantile(offs: Sequence[float]) -> float:
    """Return the standard deviation of a normal distribution with the same 80 % quantile."""
    if not offs:
        return 1.0
    ordered = sorted(map(abs, offs))
    return ordered[min(len(ordered) - 1, round(0.8 * len(ordered)))] / 1.2816

"""Fits the efficiencies of kernels to measured times of single kernels, and tells how well."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import attrs

from benchmarks.calibration.kernel_rows import TABLES, Row, provenance, read_rows
from parframe.price.cost.chip import Chip
from parframe.price.cost.efficiency import Efficiencies, Efficiency, Operator, write

TUNED = 1.25
"""A device's fastest implementation of experts is fitted if its times are at most so much longer
than on the best device of the architecture; else it runs without tiles that were chosen for it."""

SOFT = 0.05
"""Error from which rows count less than squared: times jump where a library's choice does."""


@attrs.frozen
class Error:
    """Errors of times for the rows of an operator, device, dtype and implementation."""

    operator: str
    kind: str
    device: str
    dtype: str
    implementation: str
    rows: int
    median: float
    mean: float
    bias: float
    unseen_median: float
    unseen_mean: float
    inside: float


WIDENING = 1.18
"""Constant from whole decode steps, which no row of a single kernel has: under gpt-fast on one A100
(gptfast.csv) the int8 weights of Llama 2 7B and 70B take 1.21 and 1.16 times as long as their bytes
do in products that were measured."""


def fit(rows: Sequence[Row], sources: Iterable[str] = TABLES) -> Efficiencies:
    """Fit efficiencies to rows, for each operator, device and dtype apart."""
    fitted: dict[str, dict[str, dict[str, Efficiency]]] = {}
    architectures = {}
    for (operator, on, dtype), group in _groups(_tuned(rows)).items():
        found = _fitted(operator, group)
        fitted.setdefault(operator, {}).setdefault(on.key, {})[dtype] = found
        architectures[on.key] = on.architecture
    seen = Efficiencies(fitted, architectures, {}, tuple(sources), WIDENING)
    return attrs.evolve(seen, held_out_log_std=_unseen(seen, rows))


def rebuild(folder: Path) -> str:
    """Make the text of the data file of kernels from a folder of tables."""
    return json.dumps(write(fit(read_rows(folder), provenance(folder))), indent=1) + "\n"


def _groups(rows: Iterable[Row]) -> dict[tuple[Operator, Chip, str], list[Row]]:
    groups: dict[tuple[Operator, Chip, str], list[Row]] = {}
    for row in rows:
        if row.fits:
            groups.setdefault((row.operator, row.on, row.dtype), []).append(row)
    return groups


def _tuned(rows: Sequence[Row]) -> list[Row]:
    """Keep the rows of experts of each device's fastest implementation, if it has tuned ones.

    It has none where the fastest is far from that of another device of the same architecture, each
    measured by what the same simple roofline says.
    """
    plain = Efficiency(20e-6, 0.8, 0.7)
    ratios: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row.operator == "experts":
            of = ratios.setdefault((row.on.architecture, row.dtype, row.on.key), {})
            of.setdefault(row.implementation, []).append(row.seconds / row.time(plain))
    fastest = {
        of: min((median(found), name) for name, found in implementations.items())
        for of, implementations in ratios.items()
    }
    best = {
        kind: min(ratio for of, (ratio, _) in fastest.items() if of[:2] == kind)
        for kind in {of[:2] for of in fastest}
    }
    kept = {(*of, name) for of, (ratio, name) in fastest.items() if ratio <= TUNED * best[of[:2]]}
    return [
        row
        for row in rows
        if row.operator != "experts"
        or (row.on.architecture, row.dtype, row.on.key, row.implementation) in kept
    ]


NONE = Efficiency(overhead=0.0, memory=1.0)
"""A device that reaches all of its figures."""

FASTEST = 1.5e-6
"""Seconds that no kernel is faster than, from the first instruction to the last write."""

FREE: Mapping[Operator, Mapping[str, tuple[float, float, float]]] = {
    "product": {
        "overhead": (3e-6, FASTEST, 3e-5),
        "memory": (0.8, 0.2, 1.1),
        "compute": (0.8, 0.1, 1.3),
        "sustained": (0.1, 0, 1),
    },
    "attention": {
        "overhead": (1e-5, FASTEST, 5e-5),
        "memory": (0.8, 0.2, 1.1),
        "compute": (0.6, 0.1, 1.3),
        "start": (1e-5, FASTEST, 5e-5),
        "tile": (256, 0, 2048),
        "merge": (5e-7, 0, 5e-6),
    },
    "experts": {
        "overhead": (2e-5, FASTEST, 2e-4),
        "memory": (0.8, 0.2, 1.1),
        "compute": (0.6, 0.05, 1.3),
    },
    "pointwise": {"overhead": (3e-6, FASTEST, 3e-5), "memory": (0.7, 0.1, 1.1)},
}
"""Fitted constants of each operator: where the search starts, and its bounds."""


def _fitted(operator: Operator, rows: Sequence[Row]) -> Efficiency:
    """Find the figures with the least error of logarithms, large errors counted less."""
    import numpy
    from scipy.optimize import least_squares

    free = FREE[operator]
    scale = [start for start, _, _ in free.values()]
    measured = numpy.array([row.seconds for row in rows])

    def efficiency(at: Sequence[float]) -> Efficiency:
        figures: dict[str, Any] = {
            name: float(x * s) for name, x, s in zip(free, at, scale, strict=True)
        }
        return attrs.evolve(NONE, **figures)

    def off(at: Sequence[float]) -> object:
        found = efficiency(at)
        return numpy.log(numpy.array([row.time(found) for row in rows]) / measured)

    bounds = [
        [edge[side] / s for edge, s in zip(free.values(), scale, strict=True)] for side in (1, 2)
    ]
    solved = least_squares(
        off, [1.0] * len(free), bounds=bounds, loss="soft_l1", f_scale=SOFT, diff_step=1e-3
    )
    found = efficiency(solved.x)
    return attrs.evolve(found, log_std=spread(rows, found), rows=len(rows))


def spread(rows: Sequence[Row], found: Efficiency) -> float:
    """Return the standard deviation that the middle 80 % of logarithms of errors have."""
    off = sorted(abs(math.log(row.seconds / row.time(found))) for row in rows)
    return off[min(len(off) - 1, int(0.8 * len(off)))] / 1.2816


def _unseen(seen: Efficiencies, rows: Sequence[Row]) -> dict[str, float]:
    """Return the spread of each operator's rows, each by the figures of the other devices."""
    spreads: dict[str, list[float]] = {}
    for (operator, on, dtype), group in _groups(_tuned(rows)).items():
        found, _ = seen.find(operator, on, dtype, without=on.key)
        if found.rows or any(device != on.key for device in seen.fitted[operator]):
            spreads.setdefault(operator, []).append(spread(group, found))
    return {operator: mean(found) for operator, found in spreads.items()}


def summed(efficiencies: Efficiencies, rows: Sequence[Row]) -> list[Error]:
    """Return how far times are off, by operator, device and dtype alone, as :func:`errors` does."""
    return errors(
        efficiencies, [attrs.evolve(row, kind="all", implementation="all") for row in rows]
    )


def errors(efficiencies: Efficiencies, rows: Sequence[Row]) -> list[Error]:
    """Return how far times are off, by operator, kind, device, dtype and implementation.

    ``unseen`` errors use the figures of the other devices only. ``inside`` is the part of the rows
    that the interval of 80 % holds. Rows that were left out of the fit count as others do.
    """
    groups: dict[tuple[str, str, str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.operator, row.kind, row.on.key, row.dtype, row.implementation)
        groups.setdefault(key, []).append(row)
    return [_error(efficiencies, key, group) for key, group in sorted(groups.items())]


def _error(
    efficiencies: Efficiencies, key: tuple[str, str, str, str, str], rows: Sequence[Row]
) -> Error:
    first = rows[0]
    own, _ = efficiencies.find(first.operator, first.on, first.dtype)
    other, _ = efficiencies.find(first.operator, first.on, first.dtype, without=first.on.key)
    off = [row.time(own) / row.seconds - 1 for row in rows]
    unseen = [abs(row.time(other) / row.seconds - 1) for row in rows]
    reach = 1.2816 * own.log_std
    return Error(
        *key,
        rows=len(rows),
        median=median(map(abs, off)),
        mean=mean(map(abs, off)),
        bias=median(off),
        unseen_median=median(unseen),
        unseen_mean=mean(unseen),
        inside=mean(abs(math.log1p(x)) <= reach for x in off),
    )

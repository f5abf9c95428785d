"""Fits the numbers of exchanges to measured ones, and tells how far off they are."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

import attrs

from benchmarks.calibration.collective_constants import begin, names_of, terms_of
from benchmarks.calibration.collective_rows import Row, read_rows
from parframe.price.cost.collective_model import Terms
from parframe.price.cost.communication_times import EAGER, Fitted, Spreads, seconds_of, write

_SOFT, _TOWARDS, _REACH = 0.1, 0.01, 3.5


@attrs.frozen
class Error:
    """How far predictions are off for some rows, as parts of the measured times.

    Parameters
    ----------
    device, machine, kind, implementation, source
        What the rows have in common.
    rows
        How many they are.
    median, mean
        Of absolute errors.
    bias
        The median of errors with their sign.
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


def fit(rows: Sequence[Row]) -> Fitted:
    """Fit all numbers to rows.

    Parameters
    ----------
    rows
        What `read_rows` gave, or a part of it.

    Returns
    -------
    Fitted
        With the spreads of its own rows; those for links that were not measured are got by leaving
        out a device at a time, which `fit_with_spreads` does.
    """
    inside = [row for row in rows if row.fits and row.within]
    outside = [row for row in rows if row.fits and not row.within]
    near = _near(inside)
    return _fitted(inside, outside, {**near, **_far(outside, near)})


def _near(inside: Sequence[Row]) -> dict[str, float]:
    """Fit what rows within nodes tell."""
    return _solved(inside, names_of(inside), {})


def _far(outside: Sequence[Row], near: Mapping[str, float]) -> dict[str, float]:
    """Fit what rows between nodes tell, all else given."""
    networks = sorted({row.network for row in outside})
    names = [f"wide.{network}.{word}" for network in networks for word in ("step", "share")]
    return _solved(outside, names, near)


def _fitted(inside: Sequence[Row], outside: Sequence[Row], numbers: Mapping[str, float]) -> Fitted:
    """Numbers with what they were fitted to."""
    terms = terms_of(numbers)
    return Fitted(
        terms=terms,
        spreads=Spreads(
            measured=_by(inside, lambda row: row.implementation, terms),
            network=_by(outside, lambda row: row.network, terms),
            link=0.3,
            pcie=1.0,
            other_network=1.0,
            wider=0.2,
        ),
        devices=tuple(
            sorted({r.machine.device.key for r in inside if r.group.span.reach == "link"})
        ),
        ranks=max((row.group.span.ranks for row in inside), default=1),
        provenance=dict(Counter(row.source for row in (*inside, *outside))),
    )


def fit_with_spreads(rows: Sequence[Row]) -> Fitted:
    """Fit all numbers, and tell from devices left out how far off those of other devices are."""
    found = fit(rows)
    graphs = [row for row in rows if not row.implementation.endswith(EAGER)]
    left = [(row, math.log(ratio)) for row, ratio in left_out(graphs)]
    far = [(row, math.log(ratio)) for row, ratio in networks_left_out(rows)]
    fast = _quantile([off for row, off in far if row.network == "InfiniBand"])
    spreads = attrs.evolve(
        found.spreads,
        network={**found.spreads.network, "InfiniBand": fast},
        link=_quantile([off for row, off in left if row.group.span.reach == "link"]),
        pcie=_quantile([off for row, off in left if row.group.span.reach == "pcie"]),
        other_network=_quantile([off for row, off in far if row.network != "InfiniBand"]),
    )
    return attrs.evolve(found, spreads=spreads)


def rebuild(folder: Path) -> str:
    """Make the text of the data file of exchanges from a folder of tables."""
    return json.dumps(write(fit_with_spreads(read_rows(folder))), indent=1) + "\n"


def left_out(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Predict the rows within nodes of each device from fits without it: ratios to the measured."""
    inside = [row for row in rows if row.within]
    found: list[tuple[Row, float]] = []
    for device in dict.fromkeys(row.machine.device.key for row in inside):
        terms = fit([row for row in rows if row.machine.device.key != device]).terms
        own = [row for row in inside if row.machine.device.key == device and row.fits]
        found += [(row, predicted(row, terms) / row.seconds) for row in own]
    return found


def networks_left_out(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Predict the rows between nodes of each cluster from fits without these rows."""
    found: list[tuple[Row, float]] = []
    outside = [row for row in rows if not row.within and row.fits]
    near = _near([row for row in rows if row.within and row.fits])
    for cluster in dict.fromkeys((row.source, row.machine.key) for row in outside):
        own = [row for row in outside if (row.source, row.machine.key) == cluster]
        kept = [row for row in outside if (row.source, row.machine.key) != cluster]
        found += ratios(own, terms_of({**near, **_far(kept, near)}))
    return found


def errors(pairs: Iterable[tuple[Row, float]]) -> list[Error]:
    """Tell how far off predictions are, for each device, kind, implementation and table.

    Parameters
    ----------
    pairs
        Rows with the ratio of predicted to measured: of `left_out` or `ratios`.
    """
    groups: dict[tuple[str, str, str, str, str], list[float]] = {}
    for row, ratio in pairs:
        key = (row.machine.device.key, row.machine.key, row.kind, row.implementation, row.source)
        groups.setdefault(key, []).append(ratio - 1)
    return [
        Error(*key, len(off), median(map(abs, off)), fmean(map(abs, off)), median(off))
        for key, off in sorted(groups.items())
    ]


def ratios(rows: Iterable[Row], terms: Terms) -> list[tuple[Row, float]]:
    """Give rows with the ratio of predicted to measured time."""
    return [(row, predicted(row, terms) / row.seconds) for row in rows]


def predicted(row: Row, terms: Terms) -> float:
    """The seconds that the numbers give for a row."""
    return seconds_of(row.kind, row.size, row.group, row.implementation, terms)


def _solved(
    rows: Sequence[Row], names: Sequence[str], given: Mapping[str, float]
) -> dict[str, float]:
    """Fit some numbers to the logarithms of rows, robustly, others given."""
    if not rows or not names:
        return {}
    import numpy
    from scipy.optimize import least_squares

    first = numpy.log([begin(name) for name in names])
    measured = [math.log(row.seconds) for row in rows]

    def off(x: numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]) -> list[float]:
        terms = terms_of({**given, **dict(zip(names, numpy.exp(x).tolist(), strict=True))})
        found = [math.log(predicted(r, terms)) - m for r, m in zip(rows, measured, strict=True)]
        return [*found, *(_TOWARDS * (x - first)).tolist()]

    bounds = (first - _REACH, first + _REACH)
    solved = least_squares(off, first, loss="soft_l1", f_scale=_SOFT, bounds=bounds, max_nfev=40)
    return dict(zip(names, numpy.exp(solved.x).tolist(), strict=True))


def _by(rows: Sequence[Row], name: Callable[[Row], str], terms: Terms) -> dict[str, float]:
    """The spread of rows by what they are."""
    names = dict.fromkeys(map(name, rows))
    return {one: _spread([row for row in rows if name(row) == one], terms) for one in names}


def _spread(rows: Sequence[Row], terms: Terms) -> float:
    return _quantile([math.log(ratio) for _, ratio in ratios(rows, terms)])


def _quantile(offs: Sequence[float]) -> float:
    """The deviation of a normal distribution that holds 80 % of errors as these do."""
    if not offs:
        return 1.0
    ordered = sorted(map(abs, offs))
    return ordered[min(len(ordered) - 1, round(0.8 * len(ordered)))] / 1.2816

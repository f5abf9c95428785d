"""Enumeration of the composites of some strategies for a number of devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from parframe.errors import ParframeError

AXIS_ORDER = ("PP", "EP", "DP", "CP", "TP")
"""Order of the axes of the usual strategies, the one with the most distant ranks first.

Tensor parallelism communicates most and pipeline parallelism least (Narayanan et al. 2021,
"Efficient Large-Scale Language Model Training on GPU Clusters"), so tensor parallelism gets
neighboring ranks, which share a node.
"""


def enumerate_composites(devices: int, codes: Sequence[str]) -> list[str]:
    """List every composite whose degrees multiply to the number of devices.

    Codes that are not in `AXIS_ORDER` come first, in the order given; codes of degree 1 are left
    out.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if there are no devices or no codes.

    Examples
    --------
    >>> enumerate_composites(4, ("TP", "PP"))
    ['TP4', 'PP2TP2', 'PP4']
    """
    if devices < 1:
        raise ParframeError("choice", f"{devices} devices", "do not make a mesh", "give at least 1")
    if not codes:
        raise ParframeError(
            "choice", "strategies", "no strategy is given", "name some, such as PP,EP,DP,TP"
        )
    others = [code for code in dict.fromkeys(codes) if code not in AXIS_ORDER]
    ordered = [*others, *(code for code in AXIS_ORDER if code in codes)]
    return [_format(ordered, degrees) for degrees in _products(devices, len(ordered))]


def _format(codes: Sequence[str], degrees: Sequence[int]) -> str:
    parts = [f"{code}{degree}" for code, degree in zip(codes, degrees, strict=True) if degree > 1]
    return "".join(parts) or f"{codes[-1]}1"


def _products(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """Yield all factorizations into so many factors, the largest last factor first."""
    if count == 1:
        yield (total,)
        return
    for first in _divisors(total):
        for rest in _products(total // first, count - 1):
            yield (first, *rest)


@cache
def _divisors(total: int) -> tuple[int, ...]:
    return tuple(number for number in range(1, total + 1) if total % number == 0)

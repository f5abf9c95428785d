"""All composites of some strategies for a number of devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from parframe.errors import ParframeError

ORDER = ("PP", "EP", "DP", "CP", "TP")
"""Usual strategies from the axis whose ranks lie farthest apart to the one of neighbours.

Tensor parallelism speaks most and stages least (Narayanan et al. 2021, "Efficient Large-Scale
Language Model Training on GPU Clusters"), so the former gets the ranks that share a node.
"""


def composites(devices: int, codes: Sequence[str]) -> list[str]:
    """Give every composite whose degrees multiply to the number of devices.

    Parameters
    ----------
    devices
        How many devices.
    codes
        The codes of strategies. Those that are not usual ones come first, in the order given.

    Returns
    -------
    list of str
        Such as ``["TP4", "DP2TP2", ...]``; a degree of one is left out.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if no mesh has so many devices.

    Examples
    --------
    >>> composites(4, ("TP", "PP"))
    ['TP4', 'PP2TP2', 'PP4']
    """
    if devices < 1:
        raise ParframeError("choice", f"{devices} devices", "is no mesh", "give at least 1")
    if not codes:
        raise ParframeError(
            "choice", "strategies", "none is given", "name some, such as PP,EP,DP,TP"
        )
    others = [code for code in dict.fromkeys(codes) if code not in ORDER]
    ordered = [*others, *(code for code in ORDER if code in codes)]
    return [_written(ordered, degrees) for degrees in _products(devices, len(ordered))]


def degrees(composite: str) -> dict[str, int]:
    """Give the degrees of a composite by their codes."""
    from parframe.mesh import parse_composite

    return {code: degree or 1 for code, degree in parse_composite(composite)}


def _written(codes: Sequence[str], degrees: Sequence[int]) -> str:
    parts = [f"{code}{degree}" for code, degree in zip(codes, degrees, strict=True) if degree > 1]
    return "".join(parts) or f"{codes[-1]}1"


def _products(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a number as a product, the last factor as large as can be first."""
    if count == 1:
        yield (total,)
        return
    for first in _divisors(total):
        for rest in _products(total // first, count - 1):
            yield (first, *rest)


@cache
def _divisors(total: int) -> tuple[int, ...]:
    return tuple(number for number in range(1, total + 1) if total % number == 0)

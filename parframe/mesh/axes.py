"""Names, degrees and shares of mesh axes: their limits and checks."""

import re
from collections.abc import Iterable, Mapping

from parframe.errors import ParframeError, did_you_mean

MAX_DEVICES = 65_536
"""The largest degree of an axis, and the largest number of devices of a mesh."""

MAX_SHARE = 65_536
"""The largest share of a device."""

Axes = tuple[tuple[str, int], ...]
"""Name and degree of each axis; the first varies slowest over ranks."""

Shares = tuple[tuple[str, tuple[int, ...]], ...]
"""For axes along which devices are unequal, the share of each device."""

_AXIS = re.compile(r"[a-z][a-z0-9_]{0,31}")


def is_axis(text: str) -> bool:
    """Tell whether a text can name a mesh axis: up to 32 of a-z, 0-9 and _, first one of a-z."""
    return _AXIS.fullmatch(text) is not None


def as_axes(axes: Iterable[tuple[str, int]]) -> Axes:
    """Convert pairs of name and degree to a tuple."""
    return tuple((name, degree) for name, degree in axes)


def as_shares(shares: Mapping[str, Iterable[int]] | Shares) -> Shares:
    """Convert a mapping from axis to shares to a tuple."""
    return tuple((name, tuple(parts)) for name, parts in dict(shares).items())


def check_axes(axes: Axes) -> None:
    """Raise an error unless names are legal and different, and degrees are in range."""
    for name, degree in axes:
        _check_axis(name, degree)
    names = [name for name, _ in axes]
    for name in names:
        if names.count(name) > 1:
            raise ParframeError(
                "mesh", f"axis {name!r}", "given twice", "name each axis of a mesh once"
            )


def check_shares(shares: Shares, degrees: Mapping[str, int]) -> None:
    """Raise an error unless each axis with shares exists and has one share for each device."""
    for name, parts in shares:
        _check_shares(name, parts, degrees)


def _check_axis(name: str, degree: int) -> None:
    if not isinstance(name, str) or not is_axis(name):
        raise ParframeError(
            "mesh",
            f"axis {name!r}",
            "not a legal name",
            "use a to z, digits and underscores, as in 'tp'",
        )
    if isinstance(degree, bool) or not isinstance(degree, int) or not 1 <= degree <= MAX_DEVICES:
        raise ParframeError(
            "mesh",
            f"axis {name!r}",
            f"its degree is {degree!r}",
            f"give a whole number from 1 to {MAX_DEVICES}",
        )


def _check_shares(name: str, shares: tuple[int, ...], degrees: Mapping[str, int]) -> None:
    where = f"shares.{name}"
    if name not in degrees:
        raise ParframeError(
            "mesh",
            where,
            f"the mesh has no axis {name!r}{did_you_mean(name, degrees)}",
            f"use axes of the mesh: {', '.join(degrees) or 'it has no axes'}",
        )
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= MAX_SHARE:
            hint = f"give whole numbers from 1 to {MAX_SHARE}"
            raise ParframeError("mesh", where, f"a share is {share!r}", hint)
    if len(shares) != degrees[name]:
        raise ParframeError(
            "mesh",
            where,
            f"has {len(shares)} shares, and the axis has {degrees[name]} devices",
            "give one share for each device along the axis",
        )

"""Places from regions, and places under the axes of another use of a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parframe.checking.region_ranges import read
from parframe.checking.samples import same
from parframe.checking.tensor_types import Place, Ranges, place, sizes_of
from parframe.layout import Axis, Range, axis_size
from parframe.plan import Part


def place_of(axes: tuple[Axis, ...], part: Part) -> Place | None:
    """The place that a part's region means."""
    found = pieces_of(axes, part.region, [()] * len(axes))
    return place(axes, found) if found is not None else None


def pieces_of(
    axes: tuple[Axis, ...], regions: Sequence[object], frame: Sequence[Ranges]
) -> list[Mapping[str, Range]] | None:
    """The pieces that regions of a tensor mean, axis by axis."""
    if len(regions) != len(axes):
        return None
    result: list[Mapping[str, Range]] = []
    for axis, region, outer in zip(axes, regions, frame, strict=True):
        found = read(axis, region, dict(outer)) if isinstance(region, tuple) else None
        if found is None:
            return None
        result.append(found)
    return result


def fit(where: Place, axes: tuple[Axis, ...]) -> Place | None:
    """The same part under the axes of another use of the tensor; None where they do not fit."""
    if where.axes == axes:
        return where if where.axes is axes else place(axes, map(dict, where.ranges))
    if len(where.axes) != len(axes):
        return None
    for own, axis, ranges in zip(where.axes, axes, where.ranges, strict=True):
        if not same(axis_size(own), axis_size(axis)):
            return None
        if ranges and (own != axis and not {dim for dim, _ in ranges} <= set(sizes_of(axis))):
            return None
    fitted = place(axes, map(dict, where.ranges))
    return fitted if all(map(same, fitted.shape, where.shape)) else None


def shape_text(shape: Sequence[object]) -> str:
    """A shape as text."""
    return f"[{', '.join(map(str, shape))}]"

"""Regions read back: axis and region in, the range of every dimension that it holds out."""

from __future__ import annotations

from collections.abc import Iterator

from parframe.checking.samples import same
from parframe.layout import Axis, Leaf, Pieces, Range, Region, Segments, Span, local_size
from parframe.sizes import Size, divide, product, simplify


def read(axis: Axis, region: Region, frame: Pieces) -> dict[str, Range] | None:
    """The ranges of an axis' dimensions that a region of a device's tensor holds.

    Parameters
    ----------
    axis
        The dimensions of the axis.
    region
        A part of it.
    frame
        What the tensor holds of the dimensions; all of those that are absent.

    Returns
    -------
    dict of str to Range or None
        None where the region does not lie along the dimensions.
    """
    found: dict[str, Range] = {}
    if all(_walk(list(axis), region, frame, found)):
        return found
    return None


def _walk(
    axis: list[Leaf | Segments], region: Region, frame: Pieces, found: dict[str, Range]
) -> Iterator[bool]:
    """Consume the axis part by part; each step tells whether it fits."""
    rest = [(factor, local_size((factor,), frame)) for factor in axis]
    for part in region:
        while rest and rest[0][1] == 1 and _skips(part, rest[0][0]):
            _keep_frame(rest.pop(0)[0], frame, found)
        if not rest:
            yield False
            return
        if not isinstance(part, Span):
            factor = rest.pop(0)[0]
            if not isinstance(factor, Segments) or len(factor.parts) != len(part.parts):
                yield False
                return
            for inner, inside in zip(factor.parts, part.parts, strict=True):
                yield from _walk(list(inner), inside, frame, found)
            continue
        head, size = rest.pop(0)
        minor: Size = 1
        while not same(product((size, minor)), part.size):
            if not rest:
                yield False
                return
            other, more = rest.pop(0)
            _keep_frame(other, frame, found)
            minor = product((minor, more))
        yield _take(head, part, minor, frame, found)
    for factor, size in rest:
        _keep_frame(factor, frame, found)
        yield size == 1 or size == 0


def _skips(part: object, factor: Leaf | Segments) -> bool:
    """Whether a factor of size one is left out of the region before this part."""
    if isinstance(part, Span):
        return not same(part.size, 1)
    return isinstance(factor, Leaf)


def _take(
    head: Leaf | Segments, part: Span, minor: Size, frame: Pieces, found: dict[str, Range]
) -> bool:
    """Note the range of the major dimension that a span means."""
    if part.start == 0 and same(part.stop, part.size):
        _keep_frame(head, frame, found)
        return True
    start, stop = divide(part.start, minor), divide(part.stop, minor)
    if isinstance(head, Segments) or start is None or stop is None:
        return False
    base = frame[head.dim].start if head.dim in frame else 0
    new = Range(simplify(base + start), simplify(base + stop))
    return found.setdefault(head.dim, new) == new


def _keep_frame(factor: Leaf | Segments, frame: Pieces, found: dict[str, Range]) -> None:
    if isinstance(factor, Segments):
        for part in factor.parts:
            for inner in part:
                _keep_frame(inner, frame, found)
    elif factor.dim in frame:
        found.setdefault(factor.dim, frame[factor.dim])

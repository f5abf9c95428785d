"""Parts of a chain of dimensions: rectangles that tile it, equal or in a ratio."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate, pairwise

import sympy

from parframe.layout import Range
from parframe.sizes import Size, floordiv, simplify


@lru_cache(maxsize=4096)
def split(size: Size, shares: tuple[int, ...]) -> tuple[Range, ...]:
    """Divide ``size`` elements in the ratio of some shares.

    Equal shares get parts as even as can be, larger ones first; unequal ones get parts that end
    at the nearest whole element, none of them empty if there are enough.
    """
    parts = len(shares)
    if min(shares) == max(shares):
        ends = [_even_end(size, parts, part) for part in range(parts + 1)]
    else:
        ends = _ends(size, shares)
    return tuple(_range(start, stop) for start, stop in pairwise(ends))


def _range(start: Size, stop: Size) -> Range:
    return Range(0, 0) if start == stop else Range(start, stop)


@lru_cache(maxsize=4096)
def _even_end(size: Size, parts: int, part: int) -> Size:
    """Return the end of an equal part; the first ``size % parts`` parts have one element more."""
    if isinstance(size, int):
        return part * (size // parts) + min(part, size % parts)
    if part in (0, parts):
        return part and size
    # written as it is: sympy would try for long to tell which of the two is less
    more = sympy.Min(part, sympy.Mod(size, parts), evaluate=False)
    return simplify(part * floordiv(size, parts) + more)


def _ends(size: Size, shares: tuple[int, ...]) -> list[Size]:
    """Return the ends of unequal parts."""
    total, parts = sum(shares), len(shares)
    nearest = [floordiv(2 * size * before + total, 2 * total) for before in accumulate(shares)]
    ends: list[Size] = [0, *nearest[:-1], size]
    if isinstance(size, int) and size >= parts:
        for part in range(1, parts):
            least, most = int(ends[part - 1]) + 1, size - (parts - part)
            ends[part] = min(max(int(ends[part]), least), most)
    return ends


def mirrored(halves: tuple[Size, ...], shares: tuple[int, ...]) -> tuple[tuple[Range, ...], ...]:
    """Return the parts of two halves for every rank of a group; the second half is reversed."""
    front, back = halves
    behind = split(back, shares[::-1])[::-1]
    return tuple(zip(split(front, shares), behind, strict=True))


@lru_cache(maxsize=4096)
def rectangles(sizes: tuple[Size, ...], shares: tuple[int, ...]) -> tuple[tuple[Range, ...], ...]:
    """Return the part of a chain of dimensions for every rank of a group."""
    head, rest = sizes[0], sizes[1:]
    if head == 0:
        return ((Range(0, 0),) * len(sizes),) * len(shares)
    whole = tuple(Range(0, size) for size in rest)
    if not rest or not isinstance(head, int):
        found = [(part, *whole) for part in split(head, shares)]
    elif len(shares) > head:
        found = [
            (Range(value, value + 1), *inner)
            for value, run in enumerate(_runs(shares, head))
            for inner in rectangles(rest, run)
        ]
    elif not _suffice(head, shares) and _suffice(rest[0], shares):
        found = [(Range(0, head), *inner) for inner in rectangles(rest, shares)]
    else:
        found = [(part, *whole) for part in split(head, shares)]
    return tuple(map(_whole_or_none, found))


def rectangle(sizes: tuple[Size, ...], shares: tuple[int, ...], index: int) -> tuple[Range, ...]:
    """Return the part of a chain for one rank of a group, as `rectangles` does for all."""
    head, rest = sizes[0], sizes[1:]
    if isinstance(head, int) or min(shares) != max(shares):
        return rectangles(sizes, shares)[index]
    parts = len(shares)
    ends = (_even_end(head, parts, place) for place in (index, index + 1))
    return _whole_or_none((_range(*ends), *(Range(0, size) for size in rest)))


def _whole_or_none(rectangle: tuple[Range, ...]) -> tuple[Range, ...]:
    """Return an empty rectangle if one of its dimensions is empty."""
    empty = any(span.length == 0 for span in rectangle)
    return (Range(0, 0),) * len(rectangle) if empty else rectangle


def _suffice(size: Size, shares: tuple[int, ...]) -> bool:
    """Tell whether there are enough elements that the least share is more than half of one."""
    return not isinstance(size, int) or 2 * size * min(shares) > sum(shares)


def _runs(shares: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Divide consecutive ranks into runs whose shares are as equal as possible."""
    parts = len(shares)
    if min(shares) == max(shares):
        ends = [int(_even_end(parts, count, run)) for run in range(count + 1)]
    else:
        ends = [0]
        for run in range(1, count):
            legal = range(ends[-1] + 1, parts - (count - run) + 1)
            off = {end: abs(sum(shares[:end]) * count - run * sum(shares)) for end in legal}
            ends.append(min(off, key=off.__getitem__))
        ends.append(parts)
    return [shares[start:stop] for start, stop in pairwise(ends)]

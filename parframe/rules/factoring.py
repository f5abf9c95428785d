"""Factors of two shapes with one product, matched major to minor."""

from __future__ import annotations

from math import gcd
from typing import Any

from parframe.sizes import Size, divide, product


class Factoring:
    """Factors of two shapes with one product, matched major to minor."""

    def __init__(self, left: tuple[Size, ...], right: tuple[Size, ...]) -> None:
        self.shapes = (left, right)
        self.patterns: tuple[list[list[str]], list[list[str]]] = (
            [[] for _ in left],
            [[] for _ in right],
        )
        self.sizes: dict[str, Size] = {}
        self.whole: set[str] = set()

    def label(self, size: Size) -> str:
        """Return a new label of this size."""
        name = f"f{len(self.sizes)}"
        self.sizes[name] = size
        return name

    def run(self) -> None:
        """Give every dim its pattern."""
        rest = [
            [(dim, size) for dim, size in enumerate(shape) if size != 1] for shape in self.shapes
        ]
        left, right = rest
        while left and right:
            common = _common(left[0][1], right[0][1])
            if common == 1:
                self._block(left, right)
                continue
            name = self.label(common)
            for side, items in enumerate(rest):
                dim, size = items.pop(0)
                self.patterns[side][dim].append(name)
                more = divide(size, common)
                if more != 1 and more is not None:
                    items.insert(0, (dim, more))

    def _block(self, left: list[tuple[int, Size]], right: list[tuple[int, Size]]) -> None:
        """Cut the shortest pair of groups with one product; their minor factors match."""
        lengths = _equal(left, right)
        groups = [left[: lengths[0]], right[: lengths[1]]]
        del left[: lengths[0]], right[: lengths[1]]
        tails: list[tuple[int, int, str]] = []
        while groups[0] and groups[1]:
            common = _common(groups[0][-1][1], groups[1][-1][1])
            if common == 1:
                break
            name = self.label(common)
            for side, items in enumerate(groups):
                dim, size = items.pop()
                tails.append((side, dim, name))
                more = divide(size, common)
                if more != 1 and more is not None:
                    items.append((dim, more))
        for side, items in enumerate(groups):
            for dim, size in items:
                name = self.label(size)
                self.patterns[side][dim].append(name)
                self.whole.add(name)
        for side, dim, name in reversed(tails):
            self.patterns[side][dim].append(name)


def _common(left: Size, right: Size) -> Size:
    """Return the greatest common factor that is known."""
    if isinstance(left, int) and isinstance(right, int):
        return gcd(left, right)
    if divide(left, right) is not None:
        return right
    if divide(right, left) is not None:
        return left
    return gcd(_number(left), _number(right))


def _number(size: Any) -> int:
    return size if isinstance(size, int) else int(size.as_coeff_Mul()[0])


def _equal(left: list[tuple[int, Size]], right: list[tuple[int, Size]]) -> tuple[int, int]:
    """Return how many dims of each have the first equal products, all where none are equal."""
    products = {product(size for _, size in left[:n]): n for n in range(len(left), 0, -1)}
    for n in range(1, len(right) + 1):
        here = product(size for _, size in right[:n])
        if here in products:
            return products[here], n
    return len(left), len(right)

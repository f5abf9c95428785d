"""How much of a step's tokens a device's tensors bear, and how wide they are for each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs

from parframe.checking.samples import evaluate_size
from parframe.graph import Tensor
from parframe.sizes import Size

Growth = Literal["nothing", "rows", "tokens", "pairs"]
"""What the elements of a tensor grow with: rows alone, new positions, pairs of positions."""

ROWS, POSITIONS = "batch", "sequence"
"""The symbols of a graph that stand for the rows of a batch and the positions of a row."""

_PLENTY = 720_720
"""Divisible by all numbers up to 16, so that equal shares are equal."""


@attrs.frozen
class TensorScaling:
    """A tensor for each token or row: its elements, and the part of all that are here."""

    bears: Growth
    width: int
    share: float


class TensorScalings:
    """The extents of tensors on one device, from the values of its symbols.

    Parameters
    ----------
    symbols
        The symbols of the model's graph.
    bindings
        What a device's own symbols are in terms of them.
    devices
        How many devices share rows and positions at most.
    """

    def __init__(self, symbols: frozenset[str], bindings: Mapping[str, Size], devices: int) -> None:
        self.rows = self.positions = _PLENTY * devices
        self.values = []
        for more_rows, more_positions in ((1, 1), (2, 1), (1, 2)):
            values = dict.fromkeys(symbols, 1)
            values[ROWS] = self.rows * more_rows
            values[POSITIONS] = self.positions * more_positions
            own = {name: evaluate_size(size, values) for name, size in bindings.items()}
            self.values.append({**values, **own})
        self.known: dict[tuple[Size, ...], tuple[Growth, float]] = {}
        self.shapes: dict[tuple[Size, ...], TensorScaling] = {}

    def of(self, tensor: Tensor) -> TensorScaling:
        """The extent of a tensor."""
        if tensor.shape not in self.shapes:
            self.shapes[tensor.shape] = self._of(tensor.shape)
        return self.shapes[tensor.shape]

    def _of(self, shape: tuple[Size, ...]) -> TensorScaling:
        width = 1
        sizes = []
        for size in shape:
            if isinstance(size, int):
                width *= size
            else:
                sizes.append(size)
        key = tuple(sizes)
        bears = self.bears(key)
        return TensorScaling(bears, width, self.known[key][1])

    def bears(self, sizes: tuple[Size, ...]) -> Growth:
        """What a product of sizes that are no numbers grows with."""
        if sizes not in self.known:
            self.known[sizes] = self._measured(sizes)
        return self.known[sizes][0]

    def _measured(self, sizes: tuple[Size, ...]) -> tuple[Growth, float]:
        here, wider, longer = (
            math.prod(evaluate_size(size, values) for size in sizes) for values in self.values
        )
        if wider == here or here == 0:
            return "nothing", 0.0
        if longer == here:
            return "rows", here / self.rows
        if longer > 3 * here:
            return "pairs", here / (self.rows * self.positions**2)
        return "tokens", here / (self.rows * self.positions)

    def part(self, size: Size) -> float:
        """The part of the rows or positions that one symbolic size is; 1 of a number."""
        if isinstance(size, int):
            return 1.0
        return evaluate_size(size, self.values[0]) / self.rows

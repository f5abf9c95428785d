"""Scaling of a device's tensors with the sequences and tokens of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs

from parframe.checking.samples import evaluate_size
from parframe.graph import Tensor
from parframe.sizes import Size

Growth = Literal["nothing", "rows", "tokens", "pairs"]
"""Quantity that a tensor's elements grow with: sequences, new tokens, or pairs of positions."""

BATCH, SEQUENCE = "batch", "sequence"
"""Symbols of a graph for the batch size and the length of a sequence."""

_PLENTY = 720_720
"""Sample size that is divisible by all numbers up to 16, so that equal shares are equal."""


@attrs.frozen
class TensorScaling:
    """Growth of a tensor, its elements for each token or sequence, and their share on a device."""

    grows_with: Growth
    width: int
    share: float


class TensorScalings:
    """Scaling of the tensors of one device, from sample values of its symbols.

    Parameters
    ----------
    symbols
        Symbols of the model's graph.
    bindings
        Sizes of the device's own symbols in terms of these.
    devices
        Most devices that sequences and positions are split over.
    """

    def __init__(self, symbols: frozenset[str], bindings: Mapping[str, Size], devices: int) -> None:
        self.rows = self.positions = _PLENTY * devices
        self.values = []
        for more_rows, more_positions in ((1, 1), (2, 1), (1, 2)):
            values = dict.fromkeys(symbols, 1)
            values[BATCH] = self.rows * more_rows
            values[SEQUENCE] = self.positions * more_positions
            own = {name: evaluate_size(size, values) for name, size in bindings.items()}
            self.values.append({**values, **own})
        self.known: dict[tuple[Size, ...], tuple[Growth, float]] = {}
        self.shapes: dict[tuple[Size, ...], TensorScaling] = {}

    def of(self, tensor: Tensor) -> TensorScaling:
        """Return the scaling of a tensor."""
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
        bears = self.growth(key)
        return TensorScaling(bears, width, self.known[key][1])

    def growth(self, sizes: tuple[Size, ...]) -> Growth:
        """Return the growth of a product of symbolic sizes."""
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

    def share_of(self, size: Size) -> float:
        """Return the share of sequences or positions that a size stands for; 1 for a number."""
        if isinstance(size, int):
            return 1.0
        return evaluate_size(size, self.values[0]) / self.rows

"""How fast this device computes what models are made of, as a rank of parframe computes it.

Each sample is a pass over more weights or caches than fit the processor's caches, about as long as
a token of a model takes: what disturbs a token disturbs a sample alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import torch

from parframe.measurement.samples import Times, repeated
from parframe.ops.attention import fused_attention
from parframe.ops.linear import linear
from parframe.runtime.compilation import compile_options

SHAPES = ((2048, 768), (768, 2048), (1536, 1536), (512, 1280))
"""Rows and columns of the weights that are read in turn."""

FEW = (1, 2, 4)
"""Rows of steps that are compiled; a prompt has more, and is not."""

HEADS, GROUPED, WIDTH = 16, 8, 64
"""Of the attention: heads of queries, of keys and values, and their width."""

_LONGEST = 0.1
"""Seconds of a pass at most: more rows pass over fewer weights."""

_MOST_SLOTS = 256
"""A cache is read in multiples of so many positions."""


@attrs.frozen
class Sizes:
    """How much is measured.

    Parameters
    ----------
    megabytes
        Of the weights of a pass; more than the caches hold.
    rows
        Of products.
    positions
        That a step of decoding sees, and that a prompt has.
    seconds
        That each is repeated for.
    """

    megabytes: float = 160.0
    rows: tuple[int, ...] = (1, 2, 4, 8, 32, 128, 512)
    positions: tuple[int, ...] = (32, 128, 512, 2048)
    seconds: float = 0.25


@attrs.frozen
class Point:
    """What was measured at one size: how much was computed, and in what time."""

    operator: str
    size: float
    amount: float
    times: Times


Done = Callable[[], None]
Kernel = Callable[..., Any]


class Kernels:
    """The kernels of one dtype, ready to be measured any number of times.

    Parameters
    ----------
    device, dtype
        Where and in what.
    sizes
        How much.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, sizes: Sizes) -> None:
        self.device, self.dtype, self.sizes = device, dtype, sizes
        given: dict[str, Any] = {
            "fullgraph": True, "dynamic": False, "options": compile_options(device.type)
        }  # fmt: skip
        self.products: Kernel = torch.compile(_products, **given)
        self.attention: Kernel = torch.compile(_decoded, **given)
        self.weights: list[list[torch.Tensor]] = []
        while sum(map(_bytes, self.weights)) < sizes.megabytes * 1e6:
            self.weights.append([self._random(*shape) for shape in SHAPES])

    def warm_up(self) -> None:
        """Compile."""
        for rows in set(FEW) & set(self.sizes.rows):
            self.products(self._given(rows), self.weights[0])
        for positions in self.sizes.positions:
            self.decode(positions)

    def points(self) -> Iterator[Callable[[], Point]]:
        """Give all that is measured, each to be called."""
        yield self.read
        for rows in self.sizes.rows:
            yield partial(self.product, rows)
        for positions in self.sizes.positions:
            yield partial(self.decode, positions)
        for positions in self.sizes.positions:
            yield partial(self.prompt, positions)
        for rows in (8, 64, 512):
            yield partial(self.pointwise, rows)

    def read(self) -> Point:
        """Bytes of weights that are only read and summed."""
        times = self._timed(lambda: [weight.sum() for group in self.weights for weight in group])
        return Point("read", 1.0, float(sum(map(_bytes, self.weights))), times)

    def product(self, rows: int) -> Point:
        """Products of so many rows with all the weights."""
        given, kernel = self._given(rows), self.products if rows in FEW else _products
        kernel(given, self.weights[0])
        each = self._timed(lambda: kernel(given, self.weights[0]), 0.0).middle
        groups = self.weights[: max(1, int(_LONGEST / each))]
        times = self._timed(lambda: [kernel(given, group) for group in groups])
        amount = float(len(groups) * sum(weight.numel() for weight in groups[0]))
        return Point("product", rows, amount, times)

    def decode(self, positions: int) -> Point:
        """Attention of one new position over so many, layer after layer."""
        slots = -(-positions // _MOST_SLOTS) * _MOST_SLOTS
        caches = self._caches(slots)
        query = self._random(1, HEADS, 1, WIDTH)
        at, here = self._positions(positions, slots, 1)
        once = lambda: [self.attention(query, k, v, at, here) for k, v in caches]  # noqa: E731
        amount = 2.0 * len(caches) * positions * GROUPED * WIDTH
        idle = self._idle(self.attention, 1)
        return Point("decode", positions, amount, _without(self._timed(once), idle * len(caches)))

    def prompt(self, positions: int) -> Point:
        """Attention of a prompt to itself, not compiled."""
        slots = -(-positions // _MOST_SLOTS) * _MOST_SLOTS
        key, value = (self._random(1, GROUPED, slots, WIDTH) for _ in range(2))
        query = self._random(1, HEADS, positions, WIDTH)
        at, here = self._positions(positions, slots, positions)
        amount = 1.0 * positions * positions * HEADS * 2 * WIDTH
        times = self._timed(lambda: _decoded(query, key, value, at, here))
        return Point("prompt", positions, amount, _without(times, self._idle(_decoded, 2)))

    def pointwise(self, rows: int) -> Point:
        """A norm and a gate, not compiled, by what a kernel of each alone would read and write."""
        width = SHAPES[0][0]
        one, other = self._random(rows, width), self._random(rows, width)
        small = self._random(1, 8), self._random(1, 8)
        idle = self._timed(lambda: _pointwise(*small)).low
        times = self._timed(lambda: _pointwise(one, other))
        return Point("pointwise", 2.5 * rows * width, 5.0 * rows * width, _without(times, idle))

    def _idle(self, kernel: Kernel, new: int) -> float:
        """Seconds of an attention that has next to nothing to do."""
        query, key = self._random(1, 1, new, 8), self._random(1, 1, 8, 8)
        at, here = self._positions(8, 8, new)
        return self._timed(lambda: kernel(query, key, key, at, here)).low

    def _caches(self, slots: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Caches of several layers, of as many bytes as a quarter of the weights."""
        each = 2 * GROUPED * slots * WIDTH * torch.empty(0, dtype=self.dtype).element_size()
        count = max(1, int(self.sizes.megabytes * 0.25e6 / each))
        shape = (1, GROUPED, slots, WIDTH)
        return [(self._random(*shape), self._random(*shape)) for _ in range(count)]

    def _positions(self, held: int, slots: int, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of the newest queries, and of the slots, of which the last hold nothing."""
        here = torch.arange(slots, device=self.device)
        here = torch.where(here < held, here, 1 << 40)
        return torch.arange(held - new, held, device=self.device)[None], here[None]

    def _given(self, rows: int) -> list[torch.Tensor]:
        """What a group of weights is multiplied with."""
        return [self._random(1, rows, columns) for _, columns in SHAPES]

    def _timed(self, once: Callable[[], object], seconds: float | None = None) -> Times:
        once()
        self._done()
        seconds = self.sizes.seconds if seconds is None else seconds
        computes = self.device.type == "cpu" and torch.get_num_threads() == 1
        return repeated(once, seconds, self._done, computes)

    def _done(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.float32, device=self.device).to(self.dtype)


def _products(given: list[torch.Tensor], weights: list[torch.Tensor]) -> list[torch.Tensor]:
    return [linear(one, weight) for one, weight in zip(given, weights, strict=True)]


def _bytes(weights: list[torch.Tensor]) -> int:
    return sum(weight.nbytes for weight in weights)


def _decoded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    at: torch.Tensor,
    here: torch.Tensor,
) -> torch.Tensor:
    return fused_attention(query, key, value, at, here, scale=WIDTH**-0.5, causal=True)


def _pointwise(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    normed = one * torch.rsqrt(one.pow(2).mean(-1, keepdim=True) + 1e-6) * other[0]
    return torch.nn.functional.silu(normed) * other


def _without(times: Times, idle: float) -> Times:
    """What is left without the time of as many kernels that do nothing: at least a part of it."""
    low, middle = (max(one - idle, 0.1 * one) for one in (times.low, times.middle))
    return Times(low, middle)

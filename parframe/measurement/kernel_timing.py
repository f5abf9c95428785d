"""Times of the kernels that models consist of, run as a rank of parframe runs them.

Each sample is a pass over more weights or caches than fit the processor's caches, and takes about
as long as one decode step of a model, so that other programs affect both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import torch

from parframe.measurement.samples import Times, time_repeatedly
from parframe.ops.attention import fused_attention
from parframe.ops.linear import linear
from parframe.runtime.compilation import compile_options

SHAPES = ((2048, 768), (768, 2048), (1536, 1536), (512, 1280))
"""Shapes ``[out, in]`` of the weights of a group, which are read in turn."""

COMPILED_ROWS = (1, 2, 4)
"""Numbers of rows for which kernels are compiled; prefill has more rows and is not compiled."""

HEADS, KV_HEADS, HEAD_DIM = 16, 8, 64
"""Sizes of the attention."""

_MAX_PASS_SECONDS = 0.1
"""Longest pass: products of many rows use fewer weights."""

_SLOT_MULTIPLE = 256
"""A cache is read in multiples of this many slots."""


@attrs.frozen
class KernelSizes:
    """Sizes of the kernels to time."""

    megabytes: float = 160.0  # weights of a pass: more than the processor's caches
    rows: tuple[int, ...] = (1, 2, 4, 8, 32, 128, 512)  # of products
    positions: tuple[int, ...] = (32, 128, 512, 2048)  # cached in decode, of prompts in prefill
    seconds: float = 0.25  # to repeat each kernel for


@attrs.frozen
class KernelTimes:
    """Times of one kernel at one size."""

    operator: str  # ``"read"``, ``"product"``, ``"decode"``, ``"prompt"`` or ``"pointwise"``
    size: float  # rows, positions or bytes, by which speeds are interpolated
    amount: float  # bytes read, or multiply-adds, of one run
    times: Times  # those of one run


Kernel = Callable[..., Any]


class KernelTimer:
    """Kernels of one device and dtype, which can be timed any number of times."""

    def __init__(self, device: torch.device, dtype: torch.dtype, sizes: KernelSizes) -> None:
        self.device, self.dtype, self.sizes = device, dtype, sizes
        options: dict[str, Any] = {
            "fullgraph": True, "dynamic": False, "options": compile_options(device.type)
        }  # fmt: skip
        self.products: Kernel = torch.compile(_products, **options)
        self.attention: Kernel = torch.compile(_attention, **options)
        self.weights: list[list[torch.Tensor]] = []
        while sum(map(_count_bytes, self.weights)) < sizes.megabytes * 1e6:
            self.weights.append([self._random(*shape) for shape in SHAPES])

    def warm_up(self) -> None:
        """Compile the kernels."""
        for rows in set(COMPILED_ROWS) & set(self.sizes.rows):
            self.products(self._inputs(rows), self.weights[0])
        for positions in self.sizes.positions:
            self.time_decode(positions)

    def timings(self) -> Iterator[Callable[[], KernelTimes]]:
        """Yield a function for each kernel and size, which times it when it is called."""
        yield self.time_read
        for rows in self.sizes.rows:
            yield partial(self.time_product, rows)
        for positions in self.sizes.positions:
            yield partial(self.time_decode, positions)
        for positions in self.sizes.positions:
            yield partial(self.time_prefill, positions)
        for rows in (8, 64, 512):
            yield partial(self.time_pointwise, rows)

    def time_read(self) -> KernelTimes:
        """Time reading and summing the weights; the amount is in bytes."""
        times = self._time(lambda: [weight.sum() for group in self.weights for weight in group])
        return KernelTimes("read", 1.0, float(sum(map(_count_bytes, self.weights))), times)

    def time_product(self, rows: int) -> KernelTimes:
        """Time products of a number of rows with the weights; the amount is in weights."""
        inputs = self._inputs(rows)
        kernel = self.products if rows in COMPILED_ROWS else _products
        kernel(inputs, self.weights[0])
        seconds = self._time(lambda: kernel(inputs, self.weights[0]), 0.0).median
        groups = self.weights[: max(1, int(_MAX_PASS_SECONDS / seconds))]
        times = self._time(lambda: [kernel(inputs, group) for group in groups])
        amount = float(len(groups) * sum(weight.numel() for weight in groups[0]))
        return KernelTimes("product", rows, amount, times)

    def time_decode(self, positions: int) -> KernelTimes:
        """Time the attention of one new token to cached positions, layer after layer.

        The amount is the number of elements of the cached positions.
        """
        slots = -(-positions // _SLOT_MULTIPLE) * _SLOT_MULTIPLE
        caches = self._allocate_caches(slots)
        query = self._random(1, HEADS, 1, HEAD_DIM)
        new, cached = self._positions(positions, slots, 1)
        overhead = self._measure_overhead(self.attention, 1)
        times = self._time(
            lambda: [self.attention(query, key, value, new, cached) for key, value in caches]
        )
        amount = 2.0 * len(caches) * positions * KV_HEADS * HEAD_DIM
        return KernelTimes("decode", positions, amount, _subtract(times, overhead * len(caches)))

    def time_prefill(self, positions: int) -> KernelTimes:
        """Time the attention of a prompt to itself, not compiled; the amount is multiply-adds."""
        slots = -(-positions // _SLOT_MULTIPLE) * _SLOT_MULTIPLE
        key, value = (self._random(1, KV_HEADS, slots, HEAD_DIM) for _ in range(2))
        query = self._random(1, HEADS, positions, HEAD_DIM)
        new, cached = self._positions(positions, slots, positions)
        amount = 1.0 * positions * positions * HEADS * 2 * HEAD_DIM
        times = self._time(lambda: _attention(query, key, value, new, cached))
        overhead = self._measure_overhead(_attention, 2)
        return KernelTimes("prompt", positions, amount, _subtract(times, overhead))

    def time_pointwise(self, rows: int) -> KernelTimes:
        """Time a norm and a gate, not compiled; the amount is in elements read and written."""
        width = SHAPES[0][0]
        first, second = self._random(rows, width), self._random(rows, width)
        small = self._random(1, 8), self._random(1, 8)
        overhead = self._time(lambda: _pointwise(*small)).p10
        times = _subtract(self._time(lambda: _pointwise(first, second)), overhead)
        return KernelTimes("pointwise", 2.5 * rows * width, 5.0 * rows * width, times)

    def _measure_overhead(self, attention: Kernel, queries: int) -> float:
        """Return the seconds of an attention of minimal sizes."""
        query, key = self._random(1, 1, queries, 8), self._random(1, 1, 8, 8)
        new, cached = self._positions(8, 8, queries)
        return self._time(lambda: attention(query, key, key, new, cached)).p10

    def _allocate_caches(self, slots: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return keys and values of several layers, with a quarter of the bytes of the weights."""
        element_size = torch.empty(0, dtype=self.dtype).element_size()
        layer_bytes = 2 * KV_HEADS * slots * HEAD_DIM * element_size
        layers = max(1, int(self.sizes.megabytes * 0.25e6 / layer_bytes))
        shape = (1, KV_HEADS, slots, HEAD_DIM)
        return [(self._random(*shape), self._random(*shape)) for _ in range(layers)]

    def _positions(self, cached: int, slots: int, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the positions of the newest queries, and of all slots, the last of them empty."""
        positions = torch.arange(slots, device=self.device)
        positions = torch.where(positions < cached, positions, 1 << 40)
        return torch.arange(cached - new, cached, device=self.device)[None], positions[None]

    def _inputs(self, rows: int) -> list[torch.Tensor]:
        """Return the inputs of products with a group of weights."""
        return [self._random(1, rows, columns) for _, columns in SHAPES]

    def _time(self, run: Callable[[], object], seconds: float | None = None) -> Times:
        run()
        self._synchronize()
        seconds = self.sizes.seconds if seconds is None else seconds
        single_thread = self.device.type == "cpu" and torch.get_num_threads() == 1
        return time_repeatedly(run, seconds, self._synchronize, single_thread)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.float32, device=self.device).to(self.dtype)


def _products(inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> list[torch.Tensor]:
    return [linear(rows, weight) for rows, weight in zip(inputs, weights, strict=True)]


def _count_bytes(weights: list[torch.Tensor]) -> int:
    return sum(weight.nbytes for weight in weights)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
) -> torch.Tensor:
    return fused_attention(
        query, key, value, query_positions, key_positions, scale=HEAD_DIM**-0.5, causal=True
    )


def _pointwise(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    norm = first * torch.rsqrt(first.pow(2).mean(-1, keepdim=True) + 1e-6) * second[0]
    return torch.nn.functional.silu(norm) * second


def _subtract(times: Times, overhead: float) -> Times:
    """Subtract the overhead of kernels, but leave at least a tenth of the time."""
    p10, median = (max(value - overhead, 0.1 * value) for value in (times.p10, times.median))
    return Times(p10, median)

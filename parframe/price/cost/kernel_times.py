"""Times of kernels on a GPU: a smooth roofline over tiles and processors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from math import ceil
from typing import assert_never

from parframe.hardware import Device
from parframe.price.cost.attention_times import attention_time
from parframe.price.cost.chip import Chip, chip
from parframe.price.cost.dtypes import BYTES, SIXTEEN, Dtypes
from parframe.price.cost.efficiency import (
    UNMEASURED_DTYPE_LOG_STD,
    Efficiencies,
    Efficiency,
    Operator,
    shipped,
)
from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.cost.expert_times import UNIFORM, Routing, experts_time
from parframe.price.cost.measured_kernel_times import measured_timer
from parframe.price.cost.roofline import roofline, tile_cost
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Attention, Experts, Kernel, Per, Pointwise, Product, Step

TILES = ((64, 64), (64, 128), (128, 64), (64, 256), (128, 128), (128, 256), (256, 128))
"""Tiles of rows by columns that libraries of matrix products choose from."""

FLAT_TILES = ((16, 64), (32, 64), *TILES)
"""Tiles of kernels that dequantize weights as they read them, which are written for few rows."""

SPLITS = (1, 2, 4, 8)
"""Parts that the inner dimension may be split into, where at most half of the processors have a
tile."""

MIN_SPLIT = 512
"""Least inner elements of a part of a split product."""

PARTIAL_BYTES = 2.0
"""Bytes of memory traffic of a partial result: 4 bytes are written to the cache and read again."""

SUSTAINED_SECONDS = 1e-3
"""Seconds after which the power limit lowers the clock."""


def kernel_time(
    kernel: Kernel,
    step: Step,
    gpu: Device,
    dtypes: Dtypes,
    *,
    routing: Routing = UNIFORM,
    efficiencies: Efficiencies | None = None,
    without: str | None = None,
) -> Estimate:
    """Return the time of all ``count`` kernels of an entry of a stage's work on a device.

    Parameters
    ----------
    kernel
        Kernel to time.
    step
        Sizes of the step.
    gpu
        Device of the catalog, or one with measured speeds.
    dtypes
        Dtypes of weights, cache and arithmetic.
    routing
        Distribution of tokens over experts.
    efficiencies
        Fitted constants; None for those that ship.
    without
        Device whose own rows are not used, to test the prediction of an unknown device.

    Returns
    -------
    Estimate
        Seconds on the device, without the CPU's time to launch kernels.

    Notes
    -----
    ``t = overhead + (t_compute^3 + t_memory^3)^(1/3)``: the roofline of Williams, Waterman and
    Patterson (2009) with a smooth bend. Compute takes whole waves of tiles over the processors.
    """
    return kernel_timer(kernel, gpu, dtypes, routing, efficiencies, without)(step)


def kernel_timer(
    kernel: Kernel,
    gpu: Device,
    dtypes: Dtypes,
    routing: Routing = UNIFORM,
    efficiencies: Efficiencies | None = None,
    without: str | None = None,
) -> Timer:
    """Return the timer of a kernel, which gives what `kernel_time` does for any step.

    Values that do not depend on the step are computed once, and so are equal sizes.
    """
    if gpu.measured:
        return measured_timer(kernel, gpu, dtypes)
    on, table = chip(gpu), efficiencies or shipped()
    plain, multiplied = dtypes.plain(on.rates), dtypes.products(on.rates)
    widened = BYTES[dtypes.weights] < BYTES[multiplied]
    seconds: Callable[[Step], float]
    if isinstance(kernel, Product):
        multiplied = plain if kernel.unquantized else multiplied
        widened = widened and not kernel.unquantized
        found, why = _found(table, "product", on, multiplied, without)
        weight = BYTES[plain if kernel.unquantized else dtypes.weights]
        seconds = _product(kernel, on, found, weight, multiplied, BYTES[plain])
    elif isinstance(kernel, Attention):
        widened = False
        found, why = _found(table, "attention", on, plain, without)
        seconds = _attention(kernel, on, found, BYTES[dtypes.cache], plain)
    elif isinstance(kernel, Experts):
        found, why = _found(table, "experts", on, multiplied, without)
        weight = BYTES[dtypes.weights]
        seconds = _experts(kernel, on, found, weight, multiplied, routing, BYTES[plain])
    elif isinstance(kernel, Pointwise):
        widened = False
        found, why = _found(table, "pointwise", on, plain, without)
        seconds = _pointwise(kernel, on, found, BYTES[plain])
    else:
        assert_never(kernel)
    one = Estimate(1.0, found.log_std, merge_notes(why, on.notes))
    if widened:
        remark = f"kernels that dequantize {dtypes.weights} to {multiplied} were not measured"
        one = (one * table.widening).widened(UNMEASURED_DTYPE_LOG_STD, remark)
    longer = one.value
    in_all = (lambda step: seconds(step) * longer) if widened else seconds
    return Timer(in_all, one.log_std, one.notes)


def _product(
    kernel: Product, on: Chip, found: Efficiency, weight: float, multiplied: str, plain: float
) -> Callable[[Step], float]:
    @cache
    def of(rows: int) -> float:
        inner, columns = kernel.inner, kernel.columns
        one = product_time(on, found, rows, inner, columns, weight, multiplied, plain)
        return one * kernel.count

    def seconds(step: Step) -> float:
        rows = _times(kernel.per, step) * kernel.share
        return of(max(1, ceil(rows))) if rows else 0.0

    return seconds


def _attention(
    kernel: Attention, on: Chip, found: Efficiency, cached: float, plain: str
) -> Callable[[Step], float]:
    count = kernel.count
    return lambda step: attention_time(kernel, step, on, found, cached, plain) * count


def _experts(
    kernel: Experts,
    on: Chip,
    found: Efficiency,
    weight: float,
    multiplied: str,
    routing: Routing,
    plain: float,
) -> Callable[[Step], float]:
    @cache
    def of(tokens: float) -> float:
        one = experts_time(kernel, tokens, on, found, weight, multiplied, routing, plain)
        return one * kernel.count

    return lambda step: of(step.sequences * step.new_tokens * kernel.share)


def _pointwise(
    kernel: Pointwise, on: Chip, found: Efficiency, plain: float
) -> Callable[[Step], float]:
    def seconds(step: Step) -> float:
        moved = kernel.elements * _times(kernel.per, step) * kernel.share
        return pointwise_time(moved * plain, on, found) * kernel.count

    return seconds


def _found(
    table: Efficiencies, operator: Operator, on: Chip, multiplied: str, without: str | None
) -> tuple[Efficiency, tuple[str, ...]]:
    """Return an efficiency and notes; fp16 and bf16 have the same."""
    kind = "bf16" if multiplied == "fp16" else multiplied
    return table.find(operator, on, kind, without)


def _times(per: Per, step: Step) -> float:
    return step.sequences * step.new_tokens if per == "token" else step.sequences


@lru_cache(maxsize=65536)
def product_time(
    on: Chip,
    found: Efficiency,
    rows: int,
    inner: int,
    columns: int,
    weight: float = SIXTEEN,
    multiplied: str = "bf16",
    plain: float = SIXTEEN,
) -> float:
    """Return the seconds of the matrix product ``rows x inner`` by ``inner x columns``.

    The library is assumed to choose the best of ``TILES`` and ``SPLITS``. Weights are read once
    from memory, ``weight`` bytes each. Activations have the dtype ``multiplied``, results ``plain``
    bytes.
    """
    per_tile = 2.0 * on.processors * inner / (on.rate(multiplied) * found.compute)
    bandwidth = on.bandwidth * found.memory
    once = inner * columns * weight + rows * inner * BYTES[multiplied] + rows * columns * plain
    best = float("inf")
    tiles_of = FLAT_TILES if weight < BYTES[multiplied] else TILES
    for high, wide in tiles_of:
        if high > tiles_of[0][0] and high >= 2 * rows:
            continue
        tiles = ceil(rows / high) * ceil(columns / wide)
        cost = per_tile * tile_cost(high, wide)
        for parts in SPLITS:
            if parts > 1 and (inner < parts * MIN_SPLIT or 2 * tiles * parts > on.processors):
                break
            compute = ceil(tiles * parts / on.processors) * cost / parts
            compute *= 1 + found.sustained * compute / (compute + SUSTAINED_SECONDS)
            moved = once + (parts * rows * columns * PARTIAL_BYTES if parts > 1 else 0.0)
            best = min(best, roofline(compute, moved / bandwidth))
    return found.overhead + best


def pointwise_time(moved: float, on: Chip, found: Efficiency) -> float:
    """Return the seconds of a kernel that reads and writes ``moved`` bytes and computes little."""
    return found.overhead + moved / (on.bandwidth * found.memory)

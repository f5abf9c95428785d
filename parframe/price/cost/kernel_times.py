"""Times of kernels on a GPU: a smooth roofline over tiles and processors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil

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
from parframe.price.work.work import Attention, Experts, Kernel, Pointwise, Product, Step

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

OPERATORS: Mapping[type[Kernel], Operator] = {
    Product: "product",
    Attention: "attention",
    Experts: "experts",
    Pointwise: "pointwise",
}
"""Measured operator of each class of kernels."""

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

    The CPU's time to launch kernels is not included. ``efficiencies`` are those that ship if None.
    Rows of the device ``without`` are not used, to test the prediction of an unknown device.

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

    Values that do not depend on the step are computed once. Times of equal sizes are cached.
    """
    if gpu.measured:
        return measured_timer(kernel, gpu, dtypes)
    on, table = chip(gpu), efficiencies or shipped()
    plain, multiplied = dtypes.plain(on.rates), dtypes.products(on.rates)
    widened = BYTES[dtypes.weights] < BYTES[multiplied]
    stored = dtypes.weights
    if isinstance(kernel, Attention | Pointwise) or getattr(kernel, "unquantized", False):
        multiplied, stored, widened = plain, plain, False
    found, why = table.find(OPERATORS[type(kernel)], on, multiplied, without)
    weight, result = BYTES[stored], BYTES[plain]

    def one(step: Step) -> float:
        """Return the seconds of one of the equal kernels."""
        if isinstance(kernel, Product):
            rows = ceil(step.count(kernel.per) * kernel.share)
            size = kernel.inner, kernel.columns
            return product_time(on, found, rows, *size, weight, multiplied, result) if rows else 0.0
        if isinstance(kernel, Attention):
            return attention_time(kernel, step, on, found, BYTES[dtypes.cache], plain)
        if isinstance(kernel, Experts):
            tokens = step.count("token") * kernel.share
            return experts_time(kernel, tokens, on, found, weight, multiplied, routing, result)
        moved = kernel.elements * step.count(kernel.per) * kernel.share
        return pointwise_time(moved * result, on, found)

    estimate = Estimate(1.0, found.log_std, merge_notes(why, on.notes))
    if widened:
        remark = f"kernels that dequantize {dtypes.weights} to {multiplied} were not measured"
        estimate = (estimate * table.widening).widened(UNMEASURED_DTYPE_LOG_STD, remark)
    count, longer = kernel.count, estimate.value
    return Timer(lambda step: one(step) * count * longer, estimate.log_std, estimate.notes)


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

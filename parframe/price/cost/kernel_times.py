"""The time of one kernel on a GPU: a roofline with a smooth bend, over tiles and processors."""

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
    UNMEASURED_DTYPE,
    Efficiencies,
    Efficiency,
    Operator,
    shipped,
)
from parframe.price.cost.estimate import Estimate, joined
from parframe.price.cost.expert_times import EVEN, Routing, experts_time
from parframe.price.cost.measured_kernel_times import measured_timer
from parframe.price.cost.roofline import roofline, tile_cost
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Attention, Experts, Kernel, Per, Pointwise, Product, Step

TILES = ((64, 64), (64, 128), (128, 64), (64, 256), (128, 128), (128, 256), (256, 128))
"""Tiles of rows by columns among which libraries of products choose."""

FLAT_TILES = ((16, 64), (32, 64), *TILES)
"""The same where weights are widened as they are read: such kernels are written for few rows."""

SPLITS = (1, 2, 4, 8)
"""Into how many parts the inner dimension is split where less than half of the processors have a
tile even so."""

SHORTEST_SPLIT = 512
"""Inner elements that a part of a split product has at least."""

PARTIAL = 2.0
"""Bytes of memory traffic that a partial result is worth: 4 go to the cache and come back."""

SUSTAINED = 1e-3
"""Seconds after which the limit of power begins to lower the clock."""


def kernel_time(
    kernel: Kernel,
    step: Step,
    gpu: Device,
    dtypes: Dtypes,
    *,
    routing: Routing = EVEN,
    efficiencies: Efficiencies | None = None,
    without: str | None = None,
) -> Estimate:
    """Return how long a device computes all ``count`` kernels of an entry of a stage's work.

    Parameters
    ----------
    kernel
        What is computed.
    step
        The sizes of the step.
    gpu
        A device of the catalog, or one that was measured by itself.
    dtypes
        Of weights, cache and arithmetic.
    routing
        How tokens choose experts.
    efficiencies
        Fitted figures; None: those that come with parframe.
    without
        A device whose own rows are left out, to see how well an unknown device is predicted.

    Returns
    -------
    Estimate
        Seconds on the device, without what the host needs to launch kernels.

    Notes
    -----
    ``t = overhead + (t_compute^3 + t_memory^3)^(1/3)``: the roofline of Williams, Waterman and
    Patterson (2009) with a smooth bend. Compute comes in whole waves of tiles over the processors.
    """
    return kernel_timer(kernel, gpu, dtypes, routing, efficiencies, without)(step)


def kernel_timer(
    kernel: Kernel,
    gpu: Device,
    dtypes: Dtypes,
    routing: Routing = EVEN,
    efficiencies: Efficiencies | None = None,
    without: str | None = None,
) -> Timer:
    """Return what tells how long a kernel takes in a step, as `kernel_time` does.

    What does not depend on the step is looked up once, and equal sizes are computed once.
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
    one = Estimate(1.0, found.log_std, joined(why, on.notes))
    if widened:
        remark = f"no kernels that widen {dtypes.weights} to {multiplied} were measured"
        one = (one * table.widening).widened(UNMEASURED_DTYPE, remark)
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
    """Look an efficiency up: products of 16 bits of either kind are fitted as one."""
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
    """Return the seconds of ``rows x inner`` times ``inner x columns``.

    The library is taken to choose the best of ``TILES`` and ``SPLITS``. Weights are read once
    from memory, in ``weight`` bytes each; activations have the dtype that is multiplied, results
    ``plain`` bytes.
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
            if parts > 1 and (inner < parts * SHORTEST_SPLIT or 2 * tiles * parts > on.processors):
                break
            compute = ceil(tiles * parts / on.processors) * cost / parts
            compute *= 1 + found.sustained * compute / (compute + SUSTAINED)
            moved = once + (parts * rows * columns * PARTIAL if parts > 1 else 0.0)
            best = min(best, roofline(compute, moved / bandwidth))
    return found.overhead + best


def pointwise_time(moved: float, on: Chip, found: Efficiency) -> float:
    """Return the seconds of a kernel that reads and writes so many bytes and computes little."""
    return found.overhead + moved / (on.bandwidth * found.memory)

"""The time of one kernel on a GPU: a roofline with a smooth bend, over tiles and processors."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import assert_never

from parframe.hardware import Device
from parframe.price.attention import attention_time
from parframe.price.chips import Chip, chip
from parframe.price.dtypes import BYTES, SIXTEEN, Dtypes
from parframe.price.efficiency import (
    UNMEASURED_DTYPE,
    Efficiencies,
    Efficiency,
    Operator,
    shipped,
)
from parframe.price.estimate import NOTHING, Estimate, joined
from parframe.price.experts import EVEN, Routing, experts_time
from parframe.price.roofline import roofline, tile_cost
from parframe.price.work import Attention, Experts, Kernel, Per, Pointwise, Product, Step

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
        A device of the catalogue.
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
    on = chip(gpu)
    table = efficiencies or shipped()
    if isinstance(kernel, Product):
        return _product(kernel, step, on, dtypes, table, without)
    plain = dtypes.plain(on.rates)
    if isinstance(kernel, Attention):
        found, why = _found(table, "attention", on, plain, without)
        seconds = attention_time(kernel, step, on, found, BYTES[dtypes.cache], plain)
    elif isinstance(kernel, Experts):
        multiplied = dtypes.products(on.rates)
        found, why = _found(table, "experts", on, multiplied, without)
        weight = BYTES[dtypes.weights]
        tokens = step.rows * step.new * kernel.share
        seconds = experts_time(kernel, tokens, on, found, weight, multiplied, routing, BYTES[plain])
        estimate = Estimate(seconds * kernel.count, found.spread, joined(why, on.why))
        return _widened_weights(estimate, dtypes, multiplied, table)
    elif isinstance(kernel, Pointwise):
        found, why = _found(table, "pointwise", on, plain, without)
        moved = kernel.moved * _times(kernel.per, step) * kernel.share
        seconds = pointwise_time(moved * BYTES[plain], on, found)
    else:
        assert_never(kernel)
    return Estimate(seconds * kernel.count, found.spread, joined(why, on.why))


def _product(
    kernel: Product,
    step: Step,
    on: Chip,
    dtypes: Dtypes,
    table: Efficiencies,
    without: str | None,
) -> Estimate:
    rows = _times(kernel.per, step) * kernel.share
    if not rows:
        return NOTHING
    plain = dtypes.plain(on.rates)
    multiplied = plain if kernel.table else dtypes.products(on.rates)
    weight = BYTES[plain if kernel.table else dtypes.weights]
    found, why = _found(table, "product", on, multiplied, without)
    whole = max(1, ceil(rows))
    seconds = product_time(
        on, found, whole, kernel.inner, kernel.columns, weight, multiplied, BYTES[plain]
    )
    estimate = Estimate(seconds * kernel.count, found.spread, joined(why, on.why))
    return estimate if kernel.table else _widened_weights(estimate, dtypes, multiplied, table)


def _found(
    table: Efficiencies, operator: Operator, on: Chip, multiplied: str, without: str | None
) -> tuple[Efficiency, tuple[str, ...]]:
    """Look an efficiency up: products of 16 bits of either kind are fitted as one."""
    kind = "bf16" if multiplied == "fp16" else multiplied
    return table.find(operator, on, kind, without)


def _widened_weights(
    estimate: Estimate, dtypes: Dtypes, multiplied: str, table: Efficiencies
) -> Estimate:
    """Lengthen and widen the estimate of a kernel that reads fewer bits than it multiplies."""
    if BYTES[dtypes.weights] >= BYTES[multiplied]:
        return estimate
    why = f"no kernels that widen {dtypes.weights} to {multiplied} were measured"
    return (estimate * table.widening).widened(UNMEASURED_DTYPE, why)


def _times(per: Per, step: Step) -> float:
    return step.rows * step.new if per == "token" else step.rows


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

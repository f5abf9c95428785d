"""Times of a layer's experts on a GPU, by the number of active experts and their tokens."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import ceil, exp, floor, log, sqrt

import attrs

from parframe.price.cost.chip import Chip
from parframe.price.cost.dtypes import BYTES, SIXTEEN
from parframe.price.cost.efficiency import Efficiency
from parframe.price.cost.roofline import roofline, tile_cost
from parframe.price.work.work import Experts

TILES = tuple((high, wide) for high in (16, 32, 64, 128) for wide in (64, 128))
"""Tiles of rows by columns that kernels of grouped products choose from."""

IDLE_BANDWIDTH_FACTOR = 2.0
"""Factor of its share of the memory bandwidth that a processor reaches while others are idle."""

MAX_LOADS = 32
"""Number of groups of experts with similar loads that a distribution is reduced to."""


@attrs.frozen
class Routing:
    """Distribution of tokens over experts.

    Parameters
    ----------
    exponent
        None if all experts are equally likely. Otherwise, the popularity of experts follows a power
        law with this exponent (``aiconfigurator`` measures 1.01 and 1.2).
    exact
        True if experts get whole numbers of tokens as expected, as in benchmarks, and not random
        ones.
    """

    exponent: float | None = None
    exact: bool = False


UNIFORM = Routing()
"""All experts are equally likely, as routers are trained to make them."""


@lru_cache(maxsize=65536)
def expert_loads(
    tokens: float, chosen: int, experts: int, local: int, routing: Routing
) -> tuple[tuple[float, int], ...]:
    """Return the loads of the busiest device's experts, as ``(tokens, experts)``.

    Each token visits ``chosen`` experts of the layer; ``local`` of them are on a device.
    """
    visits = tokens * chosen
    if routing.exponent is None:
        mean = visits * local / experts
        if not routing.exact:
            mean = min(mean * _lead(mean, experts / local), tokens * min(chosen, local))
        elif visits < experts:
            here = min(local, max(1.0, mean))
            return ((mean / here, max(1, round(here))),)
        return ((mean / local, local),)
    ordered = _popular(tokens, visits, experts, routing.exponent)
    if routing.exact:
        ordered = _whole(ordered)
    if local < experts:
        others = ordered[1:]
        stride = len(others) / max(1, local - 1)
        picked = [others[int((place + 0.5) * stride)] for place in range(local - 1)]
        ordered = [ordered[0], *picked]
    if len(ordered) <= MAX_LOADS:
        return tuple((load, 1) for load in ordered)
    edges = [round(place * len(ordered) / MAX_LOADS) for place in range(MAX_LOADS + 1)]
    return tuple(
        (sum(ordered[low:high]) / (high - low), high - low) for low, high in pairwise(edges)
    )


def _lead(visits: float, devices: float) -> float:
    """Return the expected load of the busiest device, relative to the mean.

    The largest of ``n`` draws with the mean and variance ``v`` is near ``v + sqrt(2 v ln n)``.
    """
    return 1 + sqrt(2 * log(devices) / visits) if devices > 1 and visits > 0 else 1.0


def _popular(tokens: float, visits: float, experts: int, exponent: float) -> list[float]:
    """Return the expected tokens of experts under a power law, the most popular expert first.

    The law spans 1 to 0.8 of the tokens, or 0.01 to 2 if visits are few, as in the collector of
    aiconfigurator. A token visits an expert once at most; the excess goes to the other experts.
    """
    low, high = (1.0, max(2.0, 0.8 * tokens)) if visits > experts else (0.01, 2.0)
    turn = 1 - exponent
    span = high**turn - low**turn
    drawn = [(low**turn + span * (place + 0.5) / experts) ** (1 / turn) for place in range(experts)]
    scale = visits / sum(drawn)
    ordered = sorted((min(tokens, load * scale) for load in drawn), reverse=True)
    for _ in range(8):
        missing = visits - sum(ordered)
        free = sum(load for load in ordered if load < tokens)
        if missing < 1e-6 * visits or not free:
            break
        ordered = [min(tokens, load * (1 + missing / free)) for load in ordered]
    return ordered


def _whole(ordered: list[float]) -> list[float]:
    """Round expected tokens to whole numbers with the same sum, by the largest remainders."""
    down = [floor(load + 1e-9) for load in ordered]
    left = round(sum(ordered)) - sum(down)
    by_rest = sorted(range(len(down)), key=lambda place: down[place] - ordered[place])
    for place in by_rest[:left]:
        down[place] += 1
    return sorted(map(float, down), reverse=True)


@lru_cache(maxsize=65536)
def experts_time(
    kernel: Experts,
    tokens: float,
    on: Chip,
    found: Efficiency,
    weight: float,
    multiplied: str,
    routing: Routing,
    plain: float = SIXTEEN,
) -> float:
    """Return the seconds of one layer's experts on the busiest device.

    Both grouped products (into ``ffn`` and back) have a roofline: weights of active experts are
    read once, and the tokens of each expert fill whole tiles. A product with fewer tiles than
    processors does not reach the whole bandwidth.
    """
    if not tokens or not kernel.local_experts:
        return 0.0
    busy = [
        (load, count, min(1.0, load) if routing.exact else 1 - exp(-load))
        for load, count in expert_loads(
            tokens, kernel.top_k, kernel.experts, kernel.local_experts, routing
        )
    ]
    touched = sum(count * seen for _, count, seen in busy)
    visits = sum(load * count for load, count, _ in busy)
    into = (kernel.matrices - 1) * kernel.ffn
    bandwidth = on.bandwidth * found.memory
    rate = on.rate(multiplied) * found.compute
    best = float("inf")
    for high, wide in TILES:
        full = max(1.0, sum(ceil(load / high) * count * seen for load, count, seen in busy))
        seconds = 0.0
        for columns, inner in ((into, kernel.hidden), (kernel.hidden, kernel.ffn)):
            tiles = full * ceil(columns / wide)
            waves = ceil(tiles / on.processors) * on.processors
            compute = waves * 2.0 * inner * tile_cost(high, wide) / rate
            moved = touched * inner * columns * weight
            moved += visits * (inner * BYTES[multiplied] + columns * plain)
            drawn = bandwidth * min(1.0, IDLE_BANDWIDTH_FACTOR * tiles / on.processors)
            seconds += roofline(compute, moved / drawn)
        best = min(best, seconds)
    # every token's visits are sorted, gathered and summed, on whichever device the experts are
    around = tokens * kernel.top_k * (2 * kernel.hidden + (into + kernel.ffn)) * plain
    around += tokens * kernel.hidden * plain
    return found.overhead + around / bandwidth + best

"""The time of a layer's experts on a GPU: how many are touched, and how full each one is."""

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
"""Tiles of rows by columns among which kernels of grouped products choose."""

STREAMS = 2.0
"""Times its share of the memory's bandwidth that a processor can draw while others are idle."""

BINS = 32
"""Groups of like experts into which a distribution of many is gathered."""


@attrs.frozen
class Routing:
    """How tokens choose experts.

    Parameters
    ----------
    exponent
        None: all experts are equally likely. Else the popularity of experts follows a power law
        with this exponent, from the least to the most popular one (``aiconfigurator`` measures
        1.01 and 1.2).
    exact
        Tokens are dealt out in whole numbers as expected, as benchmarks do, rather than drawn.
    """

    exponent: float | None = None
    exact: bool = False


EVEN = Routing()
"""Every expert is as likely as another, as routers are trained to make them."""


@lru_cache(maxsize=65536)
def loads(
    tokens: float, chosen: int, experts: int, held: int, routing: Routing
) -> tuple[tuple[float, int], ...]:
    """Return the tokens of the busiest device's experts, as ``(tokens, experts)``.

    Parameters
    ----------
    tokens
        Tokens that choose.
    chosen
        Experts that each of them visits.
    experts
        Experts of the layer.
    held
        Experts of the device.
    """
    visits = tokens * chosen
    if routing.exponent is None:
        mean = visits * held / experts
        if not routing.exact:
            mean = min(mean * _lead(mean, experts / held), tokens * min(chosen, held))
        elif visits < experts:
            here = min(held, max(1.0, mean))
            return ((mean / here, max(1, round(here))),)
        return ((mean / held, held),)
    ordered = _popular(tokens, visits, experts, routing.exponent)
    if routing.exact:
        ordered = _whole(ordered)
    if held < experts:
        others = ordered[1:]
        stride = len(others) / max(1, held - 1)
        picked = [others[int((place + 0.5) * stride)] for place in range(held - 1)]
        ordered = [ordered[0], *picked]
    if len(ordered) <= BINS:
        return tuple((load, 1) for load in ordered)
    edges = [round(place * len(ordered) / BINS) for place in range(BINS + 1)]
    return tuple(
        (sum(ordered[low:high]) / (high - low), high - low) for low, high in pairwise(edges)
    )


def _lead(visits: float, devices: float) -> float:
    """Return how far the busiest of devices is expected ahead of the mean, as a factor.

    The largest of ``n`` draws with the mean and variance ``v`` is near ``v + sqrt(2 v ln n)``.
    """
    return 1 + sqrt(2 * log(devices) / visits) if devices > 1 and visits > 0 else 1.0


def _popular(tokens: float, visits: float, experts: int, exponent: float) -> list[float]:
    """Return the expected tokens of experts under a power law, the most popular first.

    The law spans 1 to 0.8 of the tokens, or where visits are few 0.01 to 2, as in the collector of
    aiconfigurator. No expert is chosen twice by a token: what is above goes to the others.
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
    """Round expected tokens to whole ones with the same sum, by the largest remainders."""
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

    Two grouped products (into ``ffn`` and back), each a roofline: weights of the experts that are
    touched are read once, and the tokens of each expert fill whole tiles. A product of fewer tiles
    than processors cannot draw the whole bandwidth.
    """
    if not tokens or not kernel.local_experts:
        return 0.0
    busy = [
        (load, count, min(1.0, load) if routing.exact else 1 - exp(-load))
        for load, count in loads(
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
            drawn = bandwidth * min(1.0, STREAMS * tiles / on.processors)
            seconds += roofline(compute, moved / drawn)
        best = min(best, seconds)
    # every token's visits are sorted, gathered and summed up, wherever their experts are
    around = tokens * kernel.top_k * (2 * kernel.hidden + (into + kernel.ffn)) * plain
    around += tokens * kernel.hidden * plain
    return found.overhead + around / bandwidth + best

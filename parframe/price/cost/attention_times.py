"""The time of attention on a GPU: prompts by tiles of queries, decode by the cache that is read."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log2

from parframe.price.cost.chip import Chip
from parframe.price.cost.dtypes import BYTES
from parframe.price.cost.efficiency import Efficiency
from parframe.price.cost.roofline import roofline
from parframe.price.work.work import Attention, Step

TILE = 128
"""Queries of one head that a processor works on at once (FlashAttention)."""

FEW = 64
"""Queries of the heads of one key-value head that a decode kernel takes in one tile."""

FEW_NEW = 16
"""New positions of a row up to which the decode kernel is used."""

READ_BEHIND = 64
"""Keys that a row's part of a decode kernel is longer in effect, for its start."""


def attention_time(
    kernel: Attention,
    step: Step,
    on: Chip,
    found: Efficiency,
    cached: float,
    multiplied: str = "bf16",
) -> float:
    """Return the seconds of one layer's attention, with ``cached`` bytes an element of the cache.

    Notes
    -----
    Prompts: ``FlashAttention`` gives every tile of queries to a processor, which goes through the
    keys up to its last query. The time is that of all tiles over the processors, or of the longest.
    Decode: the cache is read once, in parts over all processors, and the parts are merged.
    """
    rows = step.sequences * kernel.share
    if not rows or not step.new_tokens:
        return 0.0
    if step.new_tokens <= FEW_NEW:
        return _decode(
            kernel, on, found, cached, multiplied, rows, step.new_tokens, step.cached_tokens
        )
    return _prompt(kernel, on, found, cached, multiplied, rows, step.new_tokens, step.cached_tokens)


@lru_cache(maxsize=65536)
def _prompt(
    kernel: Attention,
    on: Chip,
    found: Efficiency,
    cached: float,
    multiplied: str,
    rows: float,
    new: float,
    held: float,
) -> float:
    tiles = ceil(new / TILE)
    mean = (
        _seen(kernel, held + TILE * (tiles + 1) / 2, held, tiles)
    ) * kernel.position_share + found.tile
    longest = _longest(kernel, held + TILE * tiles) * kernel.position_share + found.tile
    width = kernel.key_width + kernel.value_width
    key = 2.0 * TILE * width * on.processors / (on.rate(multiplied) * found.compute)
    work = rows * kernel.heads * tiles * mean / on.processors
    moved = rows * (held + new) * kernel.position_share * kernel.cache_width * cached
    moved += rows * new * kernel.heads * width * BYTES[multiplied]
    compute = key * (work**3 + longest**3) ** (1 / 3)
    return found.start + roofline(compute, moved / (on.bandwidth * found.memory))


def _longest(kernel: Attention, keys: float) -> float:
    return keys if kernel.window is None else min(keys, kernel.window + TILE)


def _seen(kernel: Attention, mean: float, held: float, tiles: int) -> float:
    """Return the keys that a tile of queries goes through, in the mean over tiles."""
    if kernel.window is None:
        return mean
    reach = kernel.window + TILE
    growing = min(max(ceil((reach - held) / TILE), 0), tiles)
    inside = growing * (held + TILE * (growing + 1) / 2)
    return (inside + (tiles - growing) * reach) / tiles


@lru_cache(maxsize=65536)
def _decode(
    kernel: Attention,
    on: Chip,
    found: Efficiency,
    cached: float,
    multiplied: str,
    rows: float,
    new: float,
    held: float,
) -> float:
    keys = held + new
    if kernel.window is not None:
        keys = min(keys, kernel.window + new - 1)
    keys *= kernel.position_share
    width = kernel.key_width + kernel.value_width
    each = kernel.kv_heads * width
    if kernel.cache_width < each:
        # a latent cache is not unfolded: all heads score it and sum it as it is
        one, each = float(kernel.heads), 2 * kernel.cache_width
    else:
        one = kernel.heads / kernel.kv_heads
    compute = 2.0 * rows * ceil(one * new / FEW) * FEW * keys * each
    moved = rows * (keys + READ_BEHIND) * kernel.cache_width * cached
    moved += rows * new * kernel.heads * width * BYTES[multiplied]
    return (
        found.overhead
        + found.merge * max(0.0, log2(max(keys, 1.0) / TILE))
        + roofline(
            compute / (on.rate(multiplied) * found.compute),
            moved / (on.bandwidth * found.memory),
        )
    )

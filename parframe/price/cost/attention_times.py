"""Times of attention on a GPU: prefill by tiles of queries, decode by the cache that is read."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log2

from parframe.price.cost.chip import Chip
from parframe.price.cost.dtypes import BYTES
from parframe.price.cost.efficiency import Efficiency
from parframe.price.cost.roofline import roofline
from parframe.price.work.work import Attention, Step

QUERY_TILE = 128
"""Queries of one head in a tile, which one processor computes at once (FlashAttention)."""

DECODE_TILE = 64
"""Queries of one key-value head's query heads in a tile of a decode kernel."""

DECODE_MAX_NEW_TOKENS = 16
"""Most new tokens of a sequence for which the decode kernel is used."""

DECODE_START_KEYS = 64
"""Keys by which a sequence is effectively longer in a decode kernel, for its start."""


def attention_time(
    kernel: Attention,
    step: Step,
    on: Chip,
    found: Efficiency,
    cached: float,
    multiplied: str = "bf16",
) -> float:
    """Return the seconds of one layer's attention; an element of the cache has ``cached`` bytes.

    Prefill: as in FlashAttention, a processor takes a tile of queries and passes over the keys up
    to its last query. The time is that of all tiles divided by the processors, or of the longest
    tile. Decode: the cache is read once, in parts over all processors, and the parts are merged.
    """
    rows = step.sequences * kernel.share
    if not rows or not step.new_tokens:
        return 0.0
    timed = _decode if step.new_tokens <= DECODE_MAX_NEW_TOKENS else _prompt
    return timed(kernel, on, found, cached, multiplied, rows, step.new_tokens, step.cached_tokens)


@lru_cache(maxsize=65536)
def _prompt(
    kernel: Attention,
    on: Chip,
    found: Efficiency,
    cached: float,
    multiplied: str,
    rows: float,
    new: float,
    cached_tokens: float,
) -> float:
    tiles = ceil(new / QUERY_TILE)
    middle, last = (cached_tokens + QUERY_TILE * n for n in ((tiles + 1) / 2, tiles))
    if kernel.window is not None:
        last = min(last, kernel.window + QUERY_TILE)
    mean = _seen(kernel, middle, cached_tokens, tiles) * kernel.position_share + found.tile
    longest = last * kernel.position_share + found.tile
    width = kernel.key_width + kernel.value_width
    key = 2.0 * QUERY_TILE * width * on.processors / (on.rate(multiplied) * found.compute)
    work = rows * kernel.heads * tiles * mean / on.processors
    moved = rows * (cached_tokens + new) * kernel.position_share * kernel.cache_width * cached
    moved += rows * new * kernel.heads * width * BYTES[multiplied]
    compute = key * (work**3 + longest**3) ** (1 / 3)
    return found.start + roofline(compute, moved / (on.bandwidth * found.memory))


def _seen(kernel: Attention, mean: float, cached_tokens: float, tiles: int) -> float:
    """Return the mean number of keys that a tile of queries passes over."""
    if kernel.window is None:
        return mean
    reach = kernel.window + QUERY_TILE
    growing = min(max(ceil((reach - cached_tokens) / QUERY_TILE), 0), tiles)
    inside = growing * (cached_tokens + QUERY_TILE * (growing + 1) / 2)
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
    cached_tokens: float,
) -> float:
    keys = cached_tokens + new
    if kernel.window is not None:
        keys = min(keys, kernel.window + new - 1)
    keys *= kernel.position_share
    width = kernel.key_width + kernel.value_width
    each = kernel.kv_heads * width
    if kernel.cache_width < each:
        # a latent cache is not expanded: all heads attend to the latents themselves
        one, each = float(kernel.heads), 2 * kernel.cache_width
    else:
        one = kernel.heads / kernel.kv_heads
    compute = 2.0 * rows * ceil(one * new / DECODE_TILE) * DECODE_TILE * keys * each
    moved = rows * (keys + DECODE_START_KEYS) * kernel.cache_width * cached
    moved += rows * new * kernel.heads * width * BYTES[multiplied]
    compute /= on.rate(multiplied) * found.compute
    merging = found.merge * max(0.0, log2(max(keys, 1.0) / QUERY_TILE))
    return found.overhead + merging + roofline(compute, moved / (on.bandwidth * found.memory))

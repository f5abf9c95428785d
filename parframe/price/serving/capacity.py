"""How many sequences fit as engines allocate memory: whole blocks, activations, and reserves."""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.price.cost.dtypes import BYTES, SIXTEEN
from parframe.price.serving.device_memory import Room
from parframe.price.work.work import Product, Stage, Work

GIB = 1 << 30

HELD = {**BYTES, "mxfp4": 0.53125}
"""Bytes of an element by dtypes that weights are held in; of ``mxfp4`` 8 bits for every 32 elements
(OCP Microscaling Formats v1.0)."""


@attrs.frozen
class Allocation:
    """How a serving engine allocates the memory of a device.

    Parameters
    ----------
    name
        Its name.
    of
        Whether ``share`` is of all memory, or of what is free beside weights and activations.
    share
        The part of the memory that it uses.
    reserve, peer
        Bytes for the context, libraries and graphs; and for each other rank that it talks with.
    logit
        Bytes for each logit of the rows that are sampled at once.
    rows, tokens
        Rows that are sampled at once, and tokens of a step, at most.
    block
        Positions of a block of the cache.
    """

    name: str
    of: Literal["total", "free"]
    share: float
    reserve: float
    peer: float
    logit: float
    rows: int
    tokens: int
    block: int


@attrs.frozen
class Need:
    """Bytes of the device of a stage.

    ``room`` is what is left for caches, ``row`` what the cache of one sequence takes here.
    """

    weights: float
    activations: float
    reserve: float
    room: float
    row: float


@attrs.frozen
class Fit:
    """How many sequences fit on a plan's devices.

    Parameters
    ----------
    sequences
        Over all replicas; below zero never, 0 where weights alone are too large.
    stage
        The stage that has the least room for them.
    needs
        Of every stage.
    """

    sequences: int
    stage: int
    needs: tuple[Need, ...]


def allocation(name: str = "vllm") -> Allocation:
    """What is known of a serving engine.

    Parameters
    ----------
    name
        ``vllm`` or ``trtllm``.

    Raises
    ------
    ParframeError
        Of kind ``usage``, if nothing is known of it.
    """
    known = _data()["engine"]
    if name not in known:
        raise ParframeError(
            "usage",
            f"engine {name!r}",
            f"what it sets aside of memory is not known{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )
    values = dict(known[name])
    for key in ("reserve", "peer"):
        values[key] *= GIB
    return Allocation(name, **values)


def room(memory: float, weights: str, cache: str) -> Room:
    """Room of a device for weights and a cache of these dtypes.

    Raises
    ------
    ParframeError
        Of kind ``usage``, for a dtype that is not known.
    """
    held, kept = (_bytes_of(dtype) for dtype in (weights, cache))
    return Room(memory, held, kept, max(SIXTEEN, held))


def _bytes_of(dtype: str) -> float:
    if dtype not in HELD:
        raise ParframeError(
            "usage",
            f"dtype {dtype!r}",
            f"not known{did_you_mean(dtype, HELD)}",
            f"use one of {', '.join(HELD)}",
        )
    return HELD[dtype]


def activation_bytes(work: Work, stage: Stage, tokens: int, of: Allocation) -> float:
    """Bytes of activations at most: those of a step's tokens, or the logits of its rows."""
    alive = (
        stage.footprint.activations * tokens * SIXTEEN * work.replicas
    )  # of each replica's own step
    heads = (k.columns for k in stage.kernels if isinstance(k, Product) and k.per == "sequence")
    gathered = (e.elements for e in stage.communication if e.per == "sequence")
    logits = max((*heads, *gathered), default=0.0)
    return max(alive, logits * of.rows * of.logit)


def most_sequences(
    work: Work,
    memory: float,
    length: int,
    weights: str = "bf16",
    cache_dtype: str = "bf16",
    of: Allocation | str = "vllm",
    tokens: int | None = None,
    share: float | None = None,
) -> Fit:
    """The most sequences of a length that the devices of a plan have room for.

    Parameters
    ----------
    work
        What the plan asks of its devices.
    memory
        Bytes of a device's memory, as software sees them.
    length
        Positions that are allocated for each sequence.
    weights, cache_dtype
        Dtypes; the cache's is 16 bits unless it is said to be less.
    of
        The serving engine.
    tokens
        Tokens of a step of each replica at most; the engine's default if None.
    share
        The part of memory that the engine may use; its default if None.

    Returns
    -------
    Fit
        With what every stage needs.
    """
    made = of if isinstance(of, Allocation) else allocation(of)
    part = made.share if share is None else share
    has = room(memory, weights, cache_dtype)
    needs = tuple(
        _need(work, stage, has, length, made, part, tokens or made.tokens) for stage in work.stages
    )
    rows = [math.floor(need.room / need.row + 1e-9) if need.row else math.inf for need in needs]
    least = min(range(len(rows)), key=rows.__getitem__)
    if min(need.room for need in needs) < 0:
        return Fit(0, min(range(len(needs)), key=lambda n: needs[n].room), needs)
    if rows[least] == math.inf:
        raise ParframeError(
            "memory",
            "caches",
            "the model keeps nothing between steps, so that any number of sequences fits",
            "ask for its memory at a batch by parframe check",
        )
    return Fit(int(rows[least]) * work.replicas, least, needs)


def _need(
    work: Work,
    stage: Stage,
    has: Room,
    length: int,
    of: Allocation,
    share: float,
    tokens: int,
) -> Need:
    held = has.weights(stage.footprint)
    active = activation_bytes(work, stage, tokens, of)
    peers = max((len(e.ranks) - 1 for e in stage.communication), default=0)
    reserve = of.reserve + of.peer * peers
    if of.of == "total":
        left = share * has.memory - held - active - reserve
    else:
        free = has.memory - held - active - reserve
        left = share * free if free > 0 else free
    return Need(held, active, reserve, left, has.row(stage.footprint, length, of.block))


@cache
def _data() -> dict[str, Any]:
    text = files("parframe.price").joinpath("data", "memory.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)

"""Bytes of a device: weights, caches, and how many sequences of a deployment it has room for."""

from __future__ import annotations

import math

import attrs

from parframe.price.cost.dtypes import BYTES, SIXTEEN
from parframe.price.serving.engines import Engine
from parframe.price.work.work import Footprint, Stage, Work


@attrs.frozen
class Room:
    """What a device holds, and how many bytes its elements have.

    Parameters
    ----------
    memory
        Bytes of a device that software sees.
    weight
        Bytes of a weight that is quantised where the model is.
    cache
        Bytes of an element of the cache.
    table
        Bytes of what stays in 16 bits (embedding, head, norms, routers), and of activations.
    """

    memory: float
    weight: float = 2.0
    cache: float = 2.0
    table: float = 2.0

    @classmethod
    def of(cls, memory: float, weights: str, cache: str) -> Room:
        """Give the room of a device for weights and a cache of these dtypes."""
        return cls(memory, BYTES[weights], BYTES[cache], max(SIXTEEN, BYTES[weights]))

    def weights(self, held: Footprint) -> float:
        """Return the bytes of a stage's weights on its busiest device."""
        return held.weights * self.weight + held.unquantized * self.table

    def row(self, held: Footprint, length: float, block: int = 1) -> float:
        """Return the bytes of cache of a sequence of this length on the replica that has it.

        Positions are allocated so many at a ``block``, whether used or not; a window bounds them.
        """
        kept = 0.0
        for elements, window in held.cache:
            positions = min(length, window) if window else length
            kept += elements * (positions if block == 1 else block * math.ceil(positions / block))
        return kept * held.position_share * self.cache

    def free(self, stage: Stage, engine: Engine, tokens: float) -> float:
        """Return the bytes that an engine gives the cache on a stage's device."""
        activations = stage.footprint.activations * tokens * self.table
        taken = self.weights(stage.footprint) + engine.reserve + activations
        if engine.of_all:
            return self.memory * engine.share - taken
        return (self.memory - taken) * engine.share

    def capacity(self, work: Work, engine: Engine, length: float, tokens: float) -> float:
        """Return how many sequences of this length the whole deployment holds.

        Parameters
        ----------
        work
            What a step of the plan asks.
        engine
            What it keeps back.
        length
            Positions of a sequence, to its end: what the engine allocates before it starts one.
        tokens
            New tokens of the largest step, for which activations are allocated.
        """
        least = float("inf")
        for stage in work.stages:
            row = self.row(stage.footprint, length) * stage.footprint.batch_share
            if row > 0:
                least = min(least, self.free(stage, engine, tokens) / row)
        return max(least, 0.0)

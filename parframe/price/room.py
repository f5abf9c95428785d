"""How many sequences a deployment's memory holds."""

from __future__ import annotations

import attrs

from parframe.price.engines import Engine
from parframe.price.work import Held, Stage, Work


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
        Bytes of what stays in 16 bits, and of activations.
    """

    memory: float
    weight: float = 2.0
    cache: float = 2.0
    table: float = 2.0

    def weights(self, held: Held) -> float:
        """Return the bytes of a stage's weights on its busiest device."""
        return held.weights * self.weight + held.tables * self.table

    def row(self, held: Held, length: float) -> float:
        """Return the bytes of cache of a sequence of this length, spread over all replicas."""
        positions = sum(
            elements * (min(length, window) if window else length) for elements, window in held.kept
        )
        return positions * held.positions * held.share * self.cache

    def free(self, stage: Stage, engine: Engine, tokens: float) -> float:
        """Return the bytes that an engine gives the cache on a stage's device."""
        activations = stage.held.alive * tokens * self.table
        taken = self.weights(stage.held) + engine.reserve + activations
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
            row = self.row(stage.held, length)
            if row > 0:
                least = min(least, self.free(stage, engine, tokens) / row)
        return max(least, 0.0)

"""Memory of one device: bytes of weights, KV cache and activations, and its capacity."""

from __future__ import annotations

import math

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.price.cost.dtypes import BYTES, SIXTEEN
from parframe.price.serving.engines import Engine
from parframe.price.work.work import Footprint, Stage, Work

WEIGHT_BYTES = {**BYTES, "mxfp4": 0.53125}
"""Bytes of a stored weight by dtype; ``mxfp4`` has 8 bits of scale for every 32 elements
(OCP Microscaling Formats v1.0)."""


@attrs.frozen
class DeviceMemory:
    """Memory of a device, and the bytes of an element of what it stores.

    ``total`` is the bytes that software can use. ``weight`` is for weights that are quantized where
    the model is; ``unquantized`` is for embedding, head, norms, routers and activations.
    """

    total: float
    weight: float = 2.0
    cache: float = 2.0
    unquantized: float = 2.0

    @classmethod
    def with_dtypes(cls, total: float, weights: str, cache: str) -> DeviceMemory:
        """Return the memory of a device for weights and a KV cache of these dtypes.

        Raises
        ------
        ParframeError
            Of kind ``usage``, for an unknown dtype.
        """
        for dtype in (weights, cache):
            if dtype not in WEIGHT_BYTES:
                raise ParframeError(
                    "usage",
                    f"dtype {dtype!r}",
                    f"is not known{did_you_mean(dtype, WEIGHT_BYTES)}",
                    f"use one of {', '.join(WEIGHT_BYTES)}",
                )
        weight = WEIGHT_BYTES[weights]
        return cls(total, weight, WEIGHT_BYTES[cache], max(SIXTEEN, weight))

    def weight_bytes(self, footprint: Footprint) -> float:
        """Return the bytes of a stage's weights on its busiest device."""
        return footprint.weights * self.weight + footprint.unquantized * self.unquantized

    def sequence_bytes(self, footprint: Footprint, length: float, block: int = 1) -> float:
        """Return the bytes of KV cache of one sequence on the replica that serves it.

        Positions are allocated in blocks of ``block``. A sliding window limits their number.
        """
        elements = 0.0
        for per_position, window in footprint.cache:
            positions = min(length, window) if window else length
            if block != 1:
                positions = block * math.ceil(positions / block)
            elements += per_position * positions
        return elements * footprint.position_share * self.cache

    def cache_budget(self, stage: Stage, engine: Engine, tokens: float) -> float:
        """Return the bytes of a stage's device that the engine gives to the KV cache.

        ``tokens`` are the new tokens of the largest step, for which activations are allocated.
        """
        activations = stage.footprint.activations * tokens * self.unquantized
        return engine.cache_budget(self.total, self.weight_bytes(stage.footprint), activations)

    def capacity(self, work: Work, engine: Engine, length: float, tokens: float) -> float:
        """Return the number of sequences that fit on the whole deployment, with its fraction.

        ``length`` is the positions of a sequence at its end, which the engine allocates before it
        starts one; ``tokens`` are the new tokens of the largest step.
        """
        capacity = float("inf")
        for stage in work.stages:
            sequence = self.sequence_bytes(stage.footprint, length) * stage.footprint.batch_share
            if sequence > 0:
                capacity = min(capacity, self.cache_budget(stage, engine, tokens) / sequence)
        return max(capacity, 0.0)

"""A plan of a model on devices, served by an engine."""

from __future__ import annotations

import attrs

from parframe.price.cost.estimate import Estimate
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.serving.engines import Engine
from parframe.price.serving.step_time import Clock, StepBatch, step_time
from parframe.price.work.work import Attention, Experts, Product, Stage, Work


@attrs.frozen
class Deployment:
    """A plan of a model on devices, served by an engine."""

    work: Work
    clock: Clock
    engine: Engine
    memory: DeviceMemory

    def step_time(self, batch: StepBatch) -> Estimate:
        """Return the seconds of one step."""
        return step_time(self.work, self.clock, self.engine, batch)

    def capacity(self, length: float, tokens: float) -> float:
        """Return the number of sequences of a length that fit, with steps of so many tokens."""
        return self.memory.capacity(self.work, self.engine, length, tokens)

    def cache_budget(self) -> float:
        """Return the bytes that the fullest device has for the KV cache."""
        return min(self.memory.cache_budget(stage, self.engine, 0.0) for stage in self.work.stages)

    def decode_read_bytes(self, batch: StepBatch) -> float:
        """Return the bytes of weights and KV cache that a device of the busiest stage reads.

        Prefill tokens of the step select experts as well.
        """
        return max(self._stage_read_bytes(stage, batch) for stage in self.work.stages)

    def _stage_read_bytes(self, stage: Stage, batch: StepBatch) -> float:
        memory = self.memory
        total = 0.0
        for kernel in stage.kernels:
            if isinstance(kernel, Product):
                element = memory.unquantized if kernel.unquantized else memory.weight
                total += kernel.count * kernel.inner * kernel.columns * element
            elif isinstance(kernel, Experts):
                idle = (1 - kernel.top_k / kernel.experts) ** (batch.tokens * kernel.share)
                active = kernel.local_experts * (1 - idle)
                expert = kernel.matrices * kernel.hidden * kernel.ffn * memory.weight
                total += kernel.count * active * expert
            elif isinstance(kernel, Attention):
                positions = min(batch.context, kernel.window) if kernel.window else batch.context
                here = batch.decodes * kernel.share * positions * kernel.position_share
                total += kernel.count * here * kernel.cache_width * memory.cache
        return total

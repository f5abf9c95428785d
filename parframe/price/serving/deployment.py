"""A plan of a model on devices, served by an engine."""

from __future__ import annotations

import attrs

from parframe.price.cost.estimate import Estimate
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.serving.engines import Engine
from parframe.price.serving.step_time import Clock, StepBatch, step_time
from parframe.price.work.work import Work


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

"""Time of one step of a plan: kernels, communication, CPU overhead and overlap of stages."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import attrs

from parframe.price.cost.estimate import ZERO, Estimate, total
from parframe.price.cost.timers import Timer, TimerSum
from parframe.price.serving.engines import Engine
from parframe.price.work.work import (
    Attention,
    Communication,
    Experts,
    Kernel,
    Pointwise,
    Product,
    Stage,
    Step,
    Work,
)


class Clock(Protocol):
    """Times of kernels and communication on one kind of device, for given dtypes.

    It must be hashable, because times are cached by it.
    """

    def __hash__(self) -> int: ...

    def kernel(self, kernel: Kernel) -> Timer:
        """Return the timer of all ``count`` launches of a kernel."""

    def communication(self, communication: Communication) -> Timer:
        """Return the timer of all ``count`` calls of a communication operator."""

    def among(self, busy: float) -> Clock:
        """Return the times while this number of the plan's devices compute at once."""


@attrs.frozen
class StepBatch:
    """Sequences of one step.

    ``decodes`` sequences decode one token each, with ``context`` positions in the KV cache.
    ``prefills`` prompts, or parts of one, have ``prefill_tokens`` new tokens each.
    """

    decodes: float = 0.0
    context: float = 0.0
    prefills: float = 0.0
    prefill_tokens: float = 0.0

    @property
    def sequences(self) -> float:
        """Number of sequences in the step."""
        return self.decodes + self.prefills

    @property
    def tokens(self) -> float:
        """Number of new tokens in the step."""
        return self.decodes + self.prefills * self.prefill_tokens

    def at_least_one_per(self, replicas: int) -> StepBatch:
        """Return the batch with at least one sequence of each kind per replica.

        Replicas process whole sequences, so the busiest one has at least one.
        """
        least = float(replicas)
        decodes = max(self.decodes, least) if self.decodes else self.decodes
        prefills = max(self.prefills, least) if self.prefills else self.prefills
        return StepBatch(decodes, self.context, prefills, self.prefill_tokens)

    def micro_batch(self, share: float) -> StepBatch:
        """Return a micro-batch with this share of the sequences."""
        return StepBatch(
            self.decodes * share, self.context, self.prefills * share, self.prefill_tokens
        )


@attrs.frozen
class StageTimes:
    """Seconds of a stage's step by kind of kernel.

    ``kv_reread`` is the additional time of decode attention if it read the KV cache once for each
    query head of a group.
    """

    matmul: Estimate = ZERO
    experts: Estimate = ZERO
    attention: Estimate = ZERO
    kv_reread: Estimate = ZERO
    pointwise: Estimate = ZERO
    communication: Estimate = ZERO

    def in_engine(self, engine: Engine) -> dict[str, Estimate]:
        """Return the seconds by kind, with the engine's time factors."""
        return {
            "matmul": self.matmul * engine.matmul,
            "experts": self.experts * (engine.matmul * engine.experts),
            "attention": self.attention * engine.attention,
            "kv_reread": self.kv_reread * (engine.attention * engine.kv_reread),
            "pointwise": self.pointwise,
            "communication": self.communication * engine.communication,
        }


@attrs.frozen(eq=False)
class _StageTimers:
    """Timers of a stage by kind of kernel."""

    matmul: TimerSum
    experts: TimerSum
    pointwise: TimerSum
    communication: TimerSum
    attention: tuple[tuple[Attention, Timer], ...]


@lru_cache(maxsize=1 << 12)
def _stage_timers(stage: Stage, clock: Clock) -> _StageTimers:
    timers = [(kernel, clock.kernel(kernel)) for kernel in stage.kernels]
    products, experts, pointwise = (
        TimerSum.of(pair for pair in timers if isinstance(pair[0], kind))
        for kind in (Product, Experts, Pointwise)
    )
    communication = TimerSum.of((call, clock.communication(call)) for call in stage.communication)
    attention = tuple((kernel, timer) for kernel, timer in timers if isinstance(kernel, Attention))
    return _StageTimers(products, experts, pointwise, communication, attention)


@lru_cache(maxsize=1 << 16)
def stage_times(stage: Stage, clock: Clock, batch: StepBatch, replicas: int = 1) -> StageTimes:
    """Return the times of the kernels and the communication of a stage.

    Matmuls, experts and pointwise kernels run once over all tokens of the step. Attention runs
    separately over decode and prefill, as in engines. Kernels that are divided over replicas take
    the time of the replica with the most sequences, which has at least one.
    """
    if not batch.tokens:
        return StageTimes()
    timers, busiest = _stage_timers(stage, clock), batch.at_least_one_per(replicas)
    whole, divided = _joint_step(batch), _joint_step(busiest)
    decode = Step(busiest.decodes, 1, busiest.context)
    prefill = Step(busiest.prefills, busiest.prefill_tokens)
    attention: list[Estimate] = []
    kv_reread: list[Estimate] = []
    for kernel, timer in timers.attention:
        if decode.sequences:
            time = timer(decode)
            attention.append(time)
            kv_reread.append(time * (kernel.heads / kernel.kv_heads - 1))
        if prefill.sequences:
            attention.append(timer(prefill))
    return StageTimes(
        timers.matmul(whole, divided),
        timers.experts(whole, divided),
        total(attention),
        total(kv_reread),
        timers.pointwise(whole, divided),
        timers.communication(whole, divided),
    )


def _communication(stage: Stage, clock: Clock, batch: StepBatch, replicas: int) -> Estimate:
    if not batch.tokens:
        return ZERO
    busiest = batch.at_least_one_per(replicas)
    return _stage_timers(stage, clock).communication(_joint_step(batch), _joint_step(busiest))


def _joint_step(batch: StepBatch) -> Step:
    """Return the step of decode and prefill together."""
    return Step(batch.sequences, batch.tokens / batch.sequences)


def step_time(work: Work, clock: Clock, engine: Engine, batch: StepBatch) -> Estimate:
    """Return the seconds from one step of all sequences to the next.

    A pipeline of ``s`` stages divides the sequences into up to ``s`` micro-batches. Where stages
    overlap, the step takes as long as one micro-batch through all stages, or as all micro-batches
    on the slowest stage, whichever is longer. An engine without overlap runs all of them in turn
    (see Huang et al., GPipe, 2019).
    """
    stages = len(work.stages)
    micro = max(1, min(stages, int(batch.sequences / work.replicas)))
    part = batch.micro_batch(1 / micro)
    clock = clock.among(work.devices * micro / stages)
    times = _times_of_stages(work, clock, engine, part)
    through = total(times)
    serial = through * micro
    slowest = max(times, key=lambda time: time.value) * micro
    overlapped = max(through, slowest, key=lambda time: time.value)
    if micro > 1:
        overlap = engine.stage_overlap
        value = overlap * overlapped.value + (1 - overlap) * serial.value
        serial = attrs.evolve(serial, value=value)
    return _add_cpu_time(serial, work, engine, batch, micro)


def _times_of_stages(work: Work, clock: Clock, engine: Engine, batch: StepBatch) -> list[Estimate]:
    """Return the seconds of every stage; equal stages and kernels are computed once."""
    by_kernels: dict[int, StageTimes] = {}
    by_stage: dict[int, Estimate] = {}
    for stage in work.stages:
        if id(stage) in by_stage:
            continue
        times = by_kernels.get(id(stage.kernels))
        if times is None:
            times = stage_times(stage, clock, batch, work.replicas)
            by_kernels[id(stage.kernels)] = times
        else:
            communication = _communication(stage, clock, batch, work.replicas)
            times = attrs.evolve(times, communication=communication)
        by_stage[id(stage)] = total(list(times.in_engine(engine).values()))
    return [by_stage[id(stage)] for stage in work.stages]


def _add_cpu_time(
    device: Estimate, work: Work, engine: Engine, batch: StepBatch, micro: int
) -> Estimate:
    """Add the CPU's time: launches overlap with devices, all other work comes between steps."""
    launches = engine.launch_overhead * work.layers * micro
    busy = (device.value**6 + launches**6) ** (1 / 6)
    layer = engine.layer_overhead + (engine.prefill_overhead if batch.prefills else 0.0)
    overhead = (
        engine.step_overhead + layer * work.layers + engine.stage_overhead * (len(work.stages) - 1)
    )
    overhead += engine.sequence_overhead * batch.sequences / work.replicas
    return attrs.evolve(device, value=busy + overhead)

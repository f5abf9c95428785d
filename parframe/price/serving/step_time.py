"""How long one step of a plan takes: kernels, exchanges, the host, and how stages overlap."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import attrs

from parframe.price.cost.estimate import NOTHING, Estimate, total
from parframe.price.cost.timers import Sum, Timer
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
    """What kernels and exchanges take on one kind of device, with weights and cache in some dtypes.

    It must be hashable: times are kept by it.
    """

    def __hash__(self) -> int: ...

    def kernel(self, kernel: Kernel) -> Timer:
        """Return what times all ``count`` of a kernel."""

    def exchange(self, exchange: Communication) -> Timer:
        """Return what times all ``count`` of an exchange."""

    def among(self, busy: float) -> Clock:
        """Return the clock of a time when so many devices of the plan compute at once."""


@attrs.frozen
class Load:
    """What one step carries.

    Parameters
    ----------
    decoding
        Sequences that get one new position each.
    context
        Positions that the cache holds of each of them.
    prompts
        Prompts (or parts of one) that are read in the same step.
    prompt
        New positions of each prompt.
    """

    decoding: float = 0.0
    context: float = 0.0
    prompts: float = 0.0
    prompt: float = 0.0

    @property
    def rows(self) -> float:
        """Sequences in the step."""
        return self.decoding + self.prompts

    @property
    def tokens(self) -> float:
        """New positions in the step."""
        return self.decoding + self.prompts * self.prompt

    def busiest(self, replicas: int) -> Load:
        """Return the load in which each replica has as much as the busiest one has: whole rows."""
        least = float(replicas)
        decoding = max(self.decoding, least) if self.decoding else self.decoding
        prompts = max(self.prompts, least) if self.prompts else self.prompts
        return Load(decoding, self.context, prompts, self.prompt)

    def part(self, share: float) -> Load:
        """Return a micro-batch: this share of the sequences."""
        return Load(self.decoding * share, self.context, self.prompts * share, self.prompt)


@attrs.frozen
class Parts:
    """The seconds of a stage's step, by what takes them.

    ``again`` is what attention of decode steps would take longer, were the cache read anew for each
    query head of a group.
    """

    products: Estimate = NOTHING
    experts: Estimate = NOTHING
    attention: Estimate = NOTHING
    pointwise: Estimate = NOTHING
    exchanges: Estimate = NOTHING
    again: Estimate = NOTHING

    def total(self, engine: Engine) -> Estimate:
        """Return the seconds of devices, as this engine's kernels take them."""
        return total(
            [
                self.products * engine.products,
                self.experts * (engine.products * engine.experts),
                self.attention * engine.attention,
                self.again * (engine.attention * engine.regrouping),
                self.pointwise,
                self.exchanges * engine.exchanges,
            ]
        )


@attrs.frozen(eq=False)
class _Timed:
    """The timers of a stage, by what takes the time."""

    products: Sum
    experts: Sum
    pointwise: Sum
    exchanges: Sum
    attention: tuple[tuple[Attention, Timer], ...]

    @classmethod
    def of(cls, stage: Stage, clock: Clock) -> _Timed:
        timers = [(kernel, clock.kernel(kernel)) for kernel in stage.kernels]

        def some(kind: type[Kernel]) -> Sum:
            return Sum.of(pair for pair in timers if isinstance(pair[0], kind))

        return cls(
            some(Product),
            some(Experts),
            some(Pointwise),
            Sum.of((one, clock.exchange(one)) for one in stage.communication),
            tuple((kernel, timer) for kernel, timer in timers if isinstance(kernel, Attention)),
        )


_timed = lru_cache(maxsize=1 << 12)(_Timed.of)


@lru_cache(maxsize=1 << 16)
def parts(stage: Stage, clock: Clock, load: Load, replicas: int = 1) -> Parts:
    """Return what the kernels and exchanges of a stage take for a load.

    Products, experts and pointwise kernels run once over all tokens of the step; attention runs
    over decoding sequences and over prompts apart, as kernels of engines do. What is divided over
    replicas takes as long as on the replica that has the most rows: one of them at least.
    """
    if not load.tokens:
        return Parts()
    timed, own = _timed(stage, clock), load.busiest(replicas)
    whole, divided = _joint(load), _joint(own)
    decoding, reading = Step(own.decoding, 1, own.context), Step(own.prompts, own.prompt)
    attention: list[Estimate] = []
    again: list[Estimate] = []
    for kernel, timer in timed.attention:
        if decoding.sequences:
            time = timer(decoding)
            attention.append(time)
            again.append(time * (kernel.heads / kernel.kv_heads - 1))
        if reading.sequences:
            attention.append(timer(reading))
    return Parts(
        timed.products(whole, divided),
        timed.experts(whole, divided),
        total(attention),
        timed.pointwise(whole, divided),
        timed.exchanges(whole, divided),
        total(again),
    )


def _exchanges(stage: Stage, clock: Clock, load: Load, replicas: int) -> Estimate:
    if not load.tokens:
        return NOTHING
    return _timed(stage, clock).exchanges(_joint(load), _joint(load.busiest(replicas)))


def _joint(load: Load) -> Step:
    """Return the step of all sequences; of what replicas divide, that of the busiest one counts."""
    return Step(load.rows, load.tokens / load.rows)


def step_time(work: Work, clock: Clock, engine: Engine, load: Load) -> Estimate:
    """Return the seconds from one step of all sequences to the next.

    A pipeline of ``s`` stages divides the sequences into up to ``s`` micro-batches; where stages
    overlap, the round takes what one micro-batch needs for all stages, or all micro-batches for
    the slowest stage; an engine that does not overlap them takes all in turn (Huang et al.,
    GPipe, 2019, has the picture).
    """
    stages = len(work.stages)
    micro = max(1, min(stages, int(load.rows / work.replicas)))
    part = load.part(1 / micro)
    clock = clock.among(work.devices * micro / stages)
    times = _of_all(work, clock, engine, part)
    through = total(times)
    serial = through * micro
    slowest = max(times, key=lambda time: time.value) * micro
    together = max(through, slowest, key=lambda time: time.value)
    device = serial if micro == 1 else _blend(serial, together, engine.overlap)
    return _with_host(device, work, engine, load, micro)


def _of_all(work: Work, clock: Clock, engine: Engine, load: Load) -> list[Estimate]:
    """Return the seconds of every stage, those of one stage or of equal kernels found once."""
    known: dict[int, Parts] = {}
    times: dict[int, Estimate] = {}
    for stage in work.stages:
        if id(stage) in times:
            continue
        own = known.get(id(stage.kernels))
        if own is None:
            own = known[id(stage.kernels)] = parts(stage, clock, load, work.replicas)
        else:
            own = attrs.evolve(own, exchanges=_exchanges(stage, clock, load, work.replicas))
        times[id(stage)] = own.total(engine)
    return [times[id(stage)] for stage in work.stages]


def _blend(serial: Estimate, together: Estimate, overlap: float) -> Estimate:
    value = overlap * together.value + (1 - overlap) * serial.value
    return attrs.evolve(serial, value=value)


def _with_host(device: Estimate, work: Work, engine: Engine, load: Load, micro: int) -> Estimate:
    """Add what the host takes: launching runs beside devices, the rest between steps."""
    launching = engine.launch * work.layers * micro
    busy = (device.value**6 + launching**6) ** (1 / 6)
    layer = engine.layer + (engine.reading if load.prompts else 0.0)
    beside = engine.step + layer * work.layers + engine.stage * (len(work.stages) - 1)
    beside += engine.row * load.rows / work.replicas
    return attrs.evolve(device, value=busy + beside)

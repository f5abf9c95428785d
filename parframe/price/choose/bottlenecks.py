"""Time of a step by kind of kernel, memory of a device, and what bounds the throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from parframe.price.choose.candidates import Candidate, OperatingPoint
from parframe.price.choose.use_cases import UseCase
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.steady_state import CAPACITY, step_mixture
from parframe.price.serving.step_time import StepBatch, stage_times
from parframe.price.work.work import Attention, Experts, Product, Stage


@attrs.frozen
class Breakdown:
    """Breakdown of a mean step and of the memory of the fullest device in bytes.

    ``seconds`` are those of the slowest stage for one micro-batch by kind: ``matmul``, ``experts``,
    ``attention``, ``pointwise``, ``communication``. It is bound by ``memory bandwidth``,
    ``compute``, ``communication``, ``capacity`` or ``engine overhead``.
    """

    seconds: Mapping[str, float]
    read_time: float
    compute_time: float
    weights: float
    kv_cache: float
    memory: float
    bound_by: str


def break_down(candidate: Candidate, point: OperatingPoint, use: UseCase) -> Breakdown:
    """Return the breakdown of a candidate at a point, over the mean of its steps there."""
    deployment = candidate.deployment
    work, memory = deployment.work, deployment.memory
    micro = max(1, min(len(work.stages), int(point.concurrency / work.replicas)))
    prompt, output = use.prompt_tokens, use.output_tokens
    steps = step_mixture(deployment, point.concurrency, prompt, output)
    parts = [(share, batch.micro_batch(1 / micro)) for share, batch in steps]
    by_stage = [_mean_seconds(stage, deployment, parts) for stage in work.stages]
    totals = [sum(seconds.values()) for seconds in by_stage]
    seconds = by_stage[totals.index(max(totals))]
    device = deployment.clock.cluster.machine.device  # type: ignore[attr-defined]
    dtypes = deployment.clock.dtypes  # type: ignore[attr-defined]
    read = sum(share * deployment.decode_read_bytes(batch) for share, batch in parts)
    read_time = read / device.bandwidth
    compute_time = sum(share * _operations(deployment, batch) for share, batch in parts)
    compute_time /= device.rates[dtypes.products(device.rates)]
    fullest = max(work.stages, key=lambda stage: memory.weight_bytes(stage.footprint))
    sequence = memory.sequence_bytes(fullest.footprint, prompt + output)
    kv_cache = point.concurrency * fullest.footprint.batch_share * sequence
    weights = memory.weight_bytes(fullest.footprint)
    busy = max(sum(totals), micro * max(totals))
    step = sum(share * deployment.step_time(batch).value for share, batch in steps)
    full = (
        point.concurrency >= 0.95 * candidate.max_concurrency and candidate.limited_by == CAPACITY
    )
    bound_by = _bound_by(seconds, read_time, compute_time, step > 2 * busy, full)
    return Breakdown(seconds, read_time, compute_time, weights, kv_cache, memory.total, bound_by)


def _mean_seconds(
    stage: Stage, deployment: Deployment, parts: Sequence[tuple[float, StepBatch]]
) -> dict[str, float]:
    """Return the seconds of a stage by kind of kernel, as the mean over steps."""
    seconds: dict[str, float] = {}
    for share, batch in parts:
        times = stage_times(stage, deployment.clock, batch, deployment.work.replicas)
        for name, time in times.in_engine(deployment.engine).items():
            seconds[name] = seconds.get(name, 0.0) + share * time.value
    seconds["attention"] += seconds.pop("kv_reread")
    return seconds


def _operations(deployment: Deployment, batch: StepBatch) -> float:
    """Return the arithmetic operations of a step on the device of the busiest stage."""
    prefill_tokens = batch.prefills * batch.prefill_tokens
    pairs = batch.decodes * batch.context + prefill_tokens * batch.prefill_tokens / 2
    return max(
        (_stage_operations(stage, batch, pairs) for stage in deployment.work.stages), default=0.0
    )


def _stage_operations(stage: Stage, batch: StepBatch, pairs: float) -> float:
    """Return the operations of a stage; ``pairs`` are the pairs of query and key positions."""
    total = 0.0
    for kernel in stage.kernels:
        tokens = batch.tokens * kernel.share
        if isinstance(kernel, Product):
            rows = tokens if kernel.per == "token" else batch.sequences * kernel.share
            total += 2 * rows * kernel.inner * kernel.columns * kernel.count
        elif isinstance(kernel, Experts):
            routed = tokens * kernel.top_k * kernel.local_experts / kernel.experts
            total += 2 * routed * kernel.matrices * kernel.hidden * kernel.ffn * kernel.count
        elif isinstance(kernel, Attention):
            width = kernel.heads * (kernel.key_width + kernel.value_width)
            total += 2 * pairs * kernel.share * kernel.position_share * width * kernel.count
    return total


def _bound_by(
    seconds: Mapping[str, float],
    read_time: float,
    compute_time: float,
    mostly_overhead: bool,
    full: bool,
) -> str:
    if full:
        return "capacity"
    if mostly_overhead:
        return "engine overhead"
    if seconds["communication"] > sum(seconds.values()) / 2:
        return "communication"
    return "compute" if compute_time > read_time else "memory bandwidth"

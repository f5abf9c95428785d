"""Latency and throughput of a deployment under load: static batches, closed loops, open loops."""

from __future__ import annotations

import math

import attrs

from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.step_time import StepBatch

RESERVE_ERROR = 1e9
"""Standard error, in bytes of a device, of the memory that an engine reserves."""

UNMEASURED_WAIT = 0.4
"""Additional error of TTFT in a closed loop, for an engine without such measurements."""

MIN_CONCURRENCY = 0.7
"""Running sequences where the computed capacity is below one: such deployments do run."""

CAPACITY = "KV cache memory"
"""Limit of the concurrency by memory."""

REQUESTS = "requests"
"""Limit of the concurrency by the number of requests."""


@attrs.frozen
class BatchLatency:
    """Latency in seconds of requests that are sent at once and served as one batch.

    ``ttft`` is that of all prompts, ``tpot`` of a decode step, ``e2e_latency`` of all requests. The
    batch is served in several waves where memory does not fit it at once.
    """

    ttft: Estimate
    tpot: Estimate
    e2e_latency: Estimate
    waves: int = 1


@attrs.frozen
class SteadyState:
    """Steady state of a deployment under a load.

    ``tpot`` and ``ttft`` are in seconds, ``ttft`` is None where it cannot be predicted. The request
    rate is per second over the whole deployment. ``keeps_up`` is true where it is the offered rate.
    """

    sequences: float
    tpot: Estimate
    ttft: Estimate | None
    request_rate: Estimate
    notes: tuple[str, ...] = ()
    keeps_up: bool = False


def predict_static_batch(
    deployment: Deployment, requests: float, prompt: float, output: float
) -> BatchLatency:
    """Return the latency of requests that are sent at once.

    A batch that memory does not fit is served in waves: it is divided into as few equal parts as
    fit.
    """
    engine = deployment.engine
    capacity = deployment.capacity(
        prompt + output, min(requests * prompt, engine.max_batched_tokens)
    )
    waves = max(1, math.ceil(requests / max(capacity, 1.0) - 1e-6))
    part = requests / waves
    ttft = _prefill_time(deployment, part, prompt)
    tpot = deployment.step_time(StepBatch(part, prompt + output / 2))
    e2e_latency = (ttft + tpot * max(output - 1, 0)) * waves
    if waves > 1:
        note = f"memory fits {capacity:.0f} of {requests:.0f} sequences at once"
        e2e_latency = e2e_latency.widened(0.0, note)
    return BatchLatency(ttft, tpot, e2e_latency, waves)


def _prefill_time(deployment: Deployment, requests: float, prompt: float) -> Estimate:
    """Return the seconds of prefill of a batch, with as many prompts a step as the engine takes."""
    per_replica = max(deployment.engine.max_batched_tokens // max(prompt, 1), 1)
    at_once = min(requests, per_replica * deployment.work.replicas)
    step = deployment.step_time(StepBatch(prefills=at_once, prefill_tokens=prompt))
    return step * (requests / at_once)


def step_mixture(
    deployment: Deployment, sequences: float, prompt: float, output: float
) -> tuple[tuple[float, StepBatch], ...]:
    """Return the kinds of steps in the steady state, each with its share of the steps.

    A sequence finishes after ``output`` steps and a new one takes its place, so that ``sequences *
    prompt / output`` prefill tokens come with a step on average (Yu et al., Orca, 2022). They come
    as whole prompts, or as many as fill a step, in some of the steps; the others only decode.
    """
    context = prompt + output / 2
    replicas = deployment.work.replicas
    arriving = sequences * prompt / max(output, 1)
    max_tokens = deployment.engine.max_batched_tokens * replicas
    piece = max(max_tokens - sequences, prompt * replicas, 1.0)
    share = min(arriving / piece, 1.0)
    mixed = StepBatch(sequences, context, max(piece, arriving) / prompt, prompt)
    decode_only = ((1 - share, StepBatch(sequences, context)),) if share < 1.0 else ()
    return ((share, mixed), *decode_only)


def mean_step_time(
    deployment: Deployment, sequences: float, prompt: float, output: float
) -> Estimate:
    """Return the mean seconds of a step in the steady state with so many sequences."""
    (share, batch), *others = step_mixture(deployment, sequences, prompt, output)
    mixed = deployment.step_time(batch)
    if not others:
        return mixed
    decode_only = deployment.step_time(others[0][1])
    value = share * mixed.value + (1 - share) * decode_only.value
    spread = max(mixed.log_std, decode_only.log_std)
    return Estimate(value, spread, merge_notes(decode_only.notes, mixed.notes))


def max_concurrency(
    deployment: Deployment, prompt: float, output: float, requests: float | None = None
) -> tuple[float, str]:
    """Return the maximum number of running sequences, and what limits it."""
    engine, replicas = deployment.engine, max(1, deployment.work.replicas)
    length = prompt + output
    tokens = activation_tokens(deployment, prompt)
    step = max(float(engine.max_batched_tokens), prompt)
    limits = {
        CAPACITY: deployment.capacity(length, tokens),
        # Each step has the prefill of sequences that replace finished ones: the tokens of a step
        # limit how many can decode next to it.
        "tokens per step": step * output / length * replicas,
        "max sequences of the engine": float(engine.max_sequences) * replicas,
    }
    if requests:
        limits[REQUESTS] = float(requests)
    name = min(limits, key=lambda limit: limits[limit])
    return max(limits[name], MIN_CONCURRENCY), name


def activation_tokens(deployment: Deployment, prompt: float) -> float:
    """Return the number of tokens of a step that activations are allocated for."""
    return min(deployment.engine.max_batched_tokens, max(2048.0, prompt))


def predict_saturation(
    deployment: Deployment, prompt: float, output: float, requests: float | None = None
) -> SteadyState:
    """Return the steady state when requests are always waiting."""
    sequences, limit = max_concurrency(deployment, prompt, output, requests)
    tpot = mean_step_time(deployment, sequences, prompt, output)
    rate = tpot.rate(sequences / output)
    if limit == CAPACITY:
        error = RESERVE_ERROR / max(deployment.cache_budget(), RESERVE_ERROR)
        rate = rate.widened(error, *(("little memory is left for the KV cache",) * (error > 0.1)))
    ttft = None
    if requests:
        # The last of the requests that run at once has its first token after the prefill of all of
        # them; a request that does not run at once waits for others to finish.
        prefill = _prefill_time(deployment, min(sequences, requests), prompt)
        waiting = max(requests - sequences, 0) / 2 / rate.value
        ttft = Estimate(prefill.value / 2 + waiting, prefill.log_std, prefill.notes)
    return SteadyState(sequences, tpot, ttft, rate, (_limit_note(sequences, limit),))


def predict_closed_loop(
    deployment: Deployment, concurrency: float, prompt: float, output: float
) -> SteadyState:
    """Return the steady state with clients that each send a request when the last one is done."""
    engine = deployment.engine
    if engine.static_batching:
        return _predict_closed_loop_of_batches(deployment, concurrency, prompt, output)
    sequences, limit = max_concurrency(deployment, prompt, output, concurrency)
    tpot = mean_step_time(deployment, sequences, prompt, output)
    duration = tpot.value * output
    own_step = deployment.step_time(
        StepBatch(max(sequences - 1, 0), prompt + output / 2, 1, prompt)
    )
    others = max(sequences - 1, 0) / sequences
    waiting = engine.admission_wait * others * duration / sequences
    per_replica = sequences / deployment.work.replicas
    prefill = _prefill_time(deployment, 1, prompt).value
    waiting += engine.prefill_burst * per_replica * prefill
    waiting += max(concurrency - sequences, 0) * duration / sequences
    ttft = Estimate(
        own_step.value + waiting + engine.request_overhead, own_step.log_std, own_step.notes
    )
    if "admission_wait" not in engine.fitted:
        ttft = ttft.widened(UNMEASURED_WAIT, "time in the queue was not measured for this engine")
    rate = Estimate(
        concurrency / (ttft.value + tpot.value * max(output - 1, 0)), tpot.log_std, tpot.notes
    )
    notes = () if limit == REQUESTS else (_limit_note(sequences, limit),)
    return SteadyState(sequences, tpot, ttft, rate, notes)


def _predict_closed_loop_of_batches(
    deployment: Deployment, concurrency: float, prompt: float, output: float
) -> SteadyState:
    """Return the steady state of an engine that begins a batch when the last one is done."""
    sequences, limit = max_concurrency(deployment, prompt, output, concurrency)
    residual = deployment.engine.residual
    batch = predict_static_batch(deployment, sequences, prompt, output)
    waiting = max(concurrency / sequences - 1, 0) * batch.e2e_latency.value
    overhead = deployment.engine.request_overhead
    ttft = attrs.evolve(batch.ttft, value=batch.ttft.value + overhead + waiting)
    tpot = batch.tpot.widened(residual.get("tpot", 0.0))
    notes = () if limit == REQUESTS else (_limit_note(sequences, limit),)
    duration = ttft.value - waiting + tpot.value * max(output - 1, 0)
    rate = Estimate(sequences / duration, tpot.log_std, tpot.notes)
    return SteadyState(sequences, tpot, ttft.widened(residual.get("ttft", 0.0)), rate, notes)


def predict_open_loop(
    deployment: Deployment,
    offered: float,
    prompt: float,
    output: float,
    requests: float | None = None,
) -> SteadyState:
    """Return the steady state when ``offered`` requests arrive per second.

    By Little's law, the concurrency is the number of requests that arrive while one is served.
    Where that exceeds the maximum, the queue grows as long as requests arrive.
    """
    full = predict_saturation(deployment, prompt, output, requests)
    if offered >= full.request_rate.value:
        return _overloaded(full, offered, requests)
    sequences = _sequences_by_littles_law(deployment, offered, prompt, output, full.sequences)
    tpot = mean_step_time(deployment, sequences, prompt, output)
    own_step = deployment.step_time(StepBatch(sequences, prompt + output / 2, 1, prompt))
    utilization = offered / full.request_rate.value
    # A prompt waits for the running step and for earlier prompts: a queue with one server
    # (Pollaczek and Khinchine, constant service time).
    prefill = deployment.step_time(StepBatch(prefills=1, prefill_tokens=prompt)).value
    busy = min(offered * prefill, 0.95)
    waiting = tpot.value / 2 + busy / (2 * (1 - busy)) * prefill
    overhead = deployment.engine.request_overhead
    ttft = Estimate(own_step.value + waiting + overhead, own_step.log_std, own_step.notes)
    rate = offered
    if requests:
        # A run of so many requests lasts until the last one is done.
        duration = ttft.value + tpot.value * output
        rate = requests / (requests / offered + duration)
    notes = (f"{utilization:.0%} of the maximum request rate",)
    rates = Estimate(rate, 0.02 + 0.1 * utilization)
    return SteadyState(sequences, tpot, ttft, rates, notes, keeps_up=True)


def _overloaded(full: SteadyState, offered: float, requests: float | None) -> SteadyState:
    notes = (*full.notes, f"the offered rate ({offered:.3g} requests/s) exceeds the maximum")
    if requests is None or full.ttft is None:
        return attrs.evolve(full, ttft=None, notes=notes)
    if offered == math.inf:
        return attrs.evolve(full, notes=notes)
    growing = requests / 2 * (1 / full.request_rate.value - 1 / offered)
    ttft = Estimate(max(growing, full.tpot.value), 0.5, full.ttft.notes)
    return attrs.evolve(full, ttft=ttft, notes=notes)


def _sequences_by_littles_law(
    deployment: Deployment, offered: float, prompt: float, output: float, most: float
) -> float:
    """Return the concurrency at which requests finish at the offered rate.

    It is interpolated between concurrencies that are powers of two.
    """
    points = [2.0**power for power in range(math.ceil(math.log2(max(most, 2.0))))] + [most]
    lower, lower_rate = points[0], 0.0
    for sequences in points:
        step = mean_step_time(deployment, sequences, prompt, output).value
        rate = sequences / (output * step)
        if rate >= offered:
            if sequences == points[0]:
                return sequences * offered / rate
            part = math.log(offered / lower_rate) / math.log(rate / lower_rate)
            return float(lower * (sequences / lower) ** part)
        lower, lower_rate = sequences, rate
    return most


def _limit_note(sequences: float, limit: str) -> str:
    return f"concurrency {sequences:.0f}, limited by {limit}"

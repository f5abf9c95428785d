"""Latency and throughput that the clients of a deployment see under the load of a query."""

from __future__ import annotations

import math

import attrs

from parframe.errors import ParframeError
from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.predict.queries import Query
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.memory_traffic import decode_read_bytes
from parframe.price.serving.steady_state import (
    SteadyState,
    predict_closed_loop,
    predict_open_loop,
    predict_saturation,
    predict_static_batch,
)

DEFAULT_REQUESTS = 1000.0
"""Requests of a benchmark whose number is not given."""

DEFAULT_OUTPUT = 128.0
"""Output tokens where they are not given and matter little."""

ASSUMPTION_ERROR = 0.2
"""Additional error of TPOT where a length or the batch size is assumed."""


@attrs.frozen
class LoadResult:
    """Latency and throughput of a deployment under a load.

    Latencies are in seconds, ``ttft`` is None where it cannot be predicted; the request rate is per
    second. ``prompt`` and ``output`` are tokens of a request, ``read_bytes`` what a device reads in
    a decode step. ``keeps_up`` is true where the request rate is the offered rate.
    """

    ttft: Estimate | None
    tpot: Estimate
    e2e_latency: Estimate
    request_rate: Estimate
    sequences: float
    prompt: float
    output: float
    devices: int
    read_bytes: float
    keeps_up: bool = False


def predict_load(
    query: Query, deployment: Deployment, devices: int, needed: tuple[str, ...], rate: bool
) -> LoadResult:
    """Return the result of the load that a query describes.

    A batch size means a static batch, a concurrency a closed loop, and a request rate an open loop.
    Without any of them, a rate is that at maximum load and a latency that of one request.
    ``devices`` are the GPUs of all instances, ``needed`` the lengths that the metric needs in a
    static batch (``isl``, ``osl``), ``rate`` is true for a rate of requests or tokens.
    """
    load = (query.batch, query.concurrency, query.request_rate)
    unspecified = load == (None, None, None)
    batch = 1.0 if unspecified and not rate else query.batch
    if batch and query.request_rate is None and query.concurrency in (None, batch):
        prompt, output, assumed = _lengths(query, needed)
        result = _static_batch_result(batch, deployment, prompt, output, devices)
        if assumed:
            result = attrs.evolve(result, tpot=result.tpot.widened(ASSUMPTION_ERROR, *assumed))
        if unspecified:
            tpot = result.tpot.widened(ASSUMPTION_ERROR, "concurrency 1 assumed")
            result = attrs.evolve(result, tpot=tpot)
        return result
    prompt, output, _ = _lengths(query, ("isl", "osl"))
    if query.request_rate is not None:
        requests = query.requests or DEFAULT_REQUESTS
        notes = () if query.requests else (f"{DEFAULT_REQUESTS:.0f} requests assumed",)
        state = (
            predict_open_loop(deployment, query.request_rate, prompt, output, requests)
            if query.request_rate < math.inf
            else predict_saturation(deployment, prompt, output, requests)
        )
        return _steady_state_result(state, deployment, prompt, output, devices, notes)
    concurrency = query.concurrency or query.batch or math.inf
    if concurrency == math.inf:
        state = predict_saturation(deployment, prompt, output, query.requests)
    else:
        state = predict_closed_loop(deployment, concurrency, prompt, output)
    return _steady_state_result(state, deployment, prompt, output, devices)


def _lengths(query: Query, needed: tuple[str, ...]) -> tuple[float, float, tuple[str, ...]]:
    """Return the tokens of a prompt and of an output, with notes on what is assumed."""
    given = {"isl": query.prompt, "osl": query.output}
    missing = [column for column in needed if not given[column]]
    if missing:
        raise ParframeError(
            "usage",
            f"column {missing[0]}",
            f"is empty, but metric {query.metric} needs it",
            f"set {' and '.join(missing)} to a number of tokens",
        )
    lengths = {"isl": query.prompt or 0.0, "osl": query.output or DEFAULT_OUTPUT}
    assumed = tuple(f"{name}={lengths[name]:g} assumed" for name in given if not given[name])
    return lengths["isl"], lengths["osl"], assumed


def _static_batch_result(
    requests: float, deployment: Deployment, prompt: float, output: float, devices: int
) -> LoadResult:
    batch = predict_static_batch(deployment, requests, prompt, output)
    duration = batch.e2e_latency
    rate = Estimate(requests / duration.value, duration.log_std, duration.notes)
    read = decode_read_bytes(deployment, requests / batch.waves, prompt + output / 2)
    return LoadResult(
        batch.ttft, batch.tpot, duration, rate, requests, prompt, output, devices, read
    )


def _steady_state_result(
    state: SteadyState,
    deployment: Deployment,
    prompt: float,
    output: float,
    devices: int,
    notes: tuple[str, ...] = (),
) -> LoadResult:
    ttft = state.ttft.widened(0.0, *notes) if state.ttft else None
    e2e_latency = state.tpot * output
    if ttft:
        e2e_latency = ttft + state.tpot * max(output - 1, 0)
    rate = attrs.evolve(
        state.request_rate, notes=merge_notes(state.notes, state.request_rate.notes)
    )
    tpot = attrs.evolve(state.tpot, notes=merge_notes(state.notes, state.tpot.notes))
    read = decode_read_bytes(deployment, state.sequences, prompt + output / 2)
    return LoadResult(
        ttft,
        tpot,
        e2e_latency,
        rate,
        state.sequences,
        prompt,
        output,
        devices,
        read,
        state.keeps_up,
    )

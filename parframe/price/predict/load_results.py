"""Latency and throughput that the clients of a deployment see under the load of a query."""

from __future__ import annotations

import math

import attrs

from parframe.errors import ParframeError
from parframe.price.cost.estimate import Estimate, merge_notes
from parframe.price.predict.queries import Query
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.steady_state import (
    SteadyState,
    predict_closed_loop,
    predict_open_loop,
    predict_saturation,
    predict_static_batch,
)
from parframe.price.serving.step_time import StepBatch

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
    unspecified = (query.batch, query.concurrency, query.request_rate) == (None, None, None)
    batch = 1.0 if unspecified and not rate else query.batch
    if batch and query.request_rate is None and query.concurrency in (None, batch):
        prompt, output, assumed = _lengths(query, needed)
        static = predict_static_batch(deployment, batch, prompt, output)
        tpot, duration, sequences = static.tpot, static.e2e_latency, batch / static.waves
        if assumed:
            tpot = tpot.widened(ASSUMPTION_ERROR, *assumed)
        if unspecified:
            tpot = tpot.widened(ASSUMPTION_ERROR, "concurrency 1 assumed")
        request_rate = duration.rate(batch)
        state = SteadyState(batch, tpot, static.ttft, request_rate)
    else:
        prompt, output, _ = _lengths(query, ("isl", "osl"))
        state = _steady_state(query, deployment, prompt, output)
        duration, sequences = state.tpot * output, state.sequences
        if state.ttft:
            duration = state.ttft + state.tpot * max(output - 1, 0)
    read = deployment.decode_read_bytes(StepBatch(sequences, prompt + output / 2))
    notes, tpot, request_rate = state.notes, state.tpot, state.request_rate
    return LoadResult(
        ttft=state.ttft,
        tpot=attrs.evolve(tpot, notes=merge_notes(notes, tpot.notes)),
        e2e_latency=duration,
        request_rate=attrs.evolve(request_rate, notes=merge_notes(notes, request_rate.notes)),
        sequences=state.sequences,
        prompt=prompt,
        output=output,
        devices=devices,
        read_bytes=read,
        keeps_up=state.keeps_up,
    )


def _steady_state(
    query: Query, deployment: Deployment, prompt: float, output: float
) -> SteadyState:
    concurrency = query.concurrency or query.batch or math.inf
    offered, requests = query.request_rate, query.requests
    if offered is None and concurrency < math.inf:
        return predict_closed_loop(deployment, concurrency, prompt, output)
    if offered is None:
        return predict_saturation(deployment, prompt, output, requests)
    given = requests or DEFAULT_REQUESTS
    state = (
        predict_open_loop(deployment, offered, prompt, output, given)
        if offered < math.inf
        else predict_saturation(deployment, prompt, output, given)
    )
    if requests or state.ttft is None:
        return state
    note = f"{DEFAULT_REQUESTS:.0f} requests assumed"
    return attrs.evolve(state, ttft=state.ttft.widened(0.0, note))


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

"""The metrics and units of tables of measurements: what each asks of a deployment."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.price.cost.estimate import Estimate, joined
from parframe.price.predict.queries import Question
from parframe.price.serving.memory_traffic import decode_bytes
from parframe.price.serving.steady_state import (
    Deployment,
    Served,
    closed_loop,
    open_loop,
    saturated,
    static_batch,
)

Kind = Literal["rate", "token", "first", "whole"]
"""What a figure is of: work a second, a token's time, the first token's, a whole request's."""

USUAL_REQUESTS = 1000.0
"""How many requests a benchmark sends where nothing says how many."""

USUAL_OUTPUT = 128.0
"""Tokens of an answer where nothing says how many and it hardly matters."""

UNTOLD = 0.2
"""The further spread of a token's time where a length is not told, on which it depends little."""

NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "token": (), "first": ("isl",), "rate": ("isl", "osl"), "whole": ("isl", "osl"),
}  # fmt: skip
"""The lengths without which nothing can be said of a batch; of requests that come and go, both."""


@attrs.frozen
class Metric:
    """What a column `metric` may say.

    Parameters
    ----------
    kind
        Whose errors it has.
    unit
        Its unit where a row gives none.
    of
        Reads it off what is seen.
    """

    kind: Kind
    unit: str
    of: Callable[[Seen], Estimate]


@attrs.frozen
class Seen:
    """What a client sees of a deployment.

    Parameters
    ----------
    first
        Seconds to the first token; None where there is no basis.
    token
        Seconds of a later one.
    whole
        Seconds of a request.
    rate
        Requests a second.
    rows
        Requests in flight.
    prompt, output
        Tokens of a request.
    devices
        GPUs.
    read
        Bytes that a device reads for a step of decoding.
    offered
        Whether the rate is what is offered.
    """

    first: Estimate | None
    token: Estimate
    whole: Estimate
    rate: Estimate
    rows: float
    prompt: float
    output: float
    devices: int
    read: float
    offered: bool = False


def seen(asked: Question, deployment: Deployment, devices: int) -> Seen:
    """Return what a client sees under the load that a question says.

    A stated batch is served as a batch; a concurrency keeps so many in flight; an offered rate
    comes by itself; with none of them as many are in flight as can be.
    """
    kind = METRICS[metric_name(asked.metric)].kind
    alone = asked.batch is None and asked.concurrency is None and asked.rate is None
    batch = asked.batch
    if alone and kind != "rate":
        batch = 1.0
    if batch and asked.rate is None and asked.concurrency in (None, batch):
        prompt, output, untold = _lengths(asked, NEEDED[kind])
        found = _batch(batch, deployment, prompt, output, devices)
        if untold:
            found = attrs.evolve(found, token=found.token.widened(UNTOLD, *untold))
        if alone:
            found = attrs.evolve(found, token=found.token.widened(0.2, "taken for a request alone"))
        return found
    prompt, output, _ = _lengths(asked, ("isl", "osl"))
    if asked.rate is not None:
        requests = asked.requests or USUAL_REQUESTS
        why = () if asked.requests else (f"taken for a run of {USUAL_REQUESTS:.0f} requests",)
        served = (
            open_loop(deployment, asked.rate, prompt, output, requests)
            if asked.rate < math.inf
            else saturated(deployment, prompt, output, requests)
        )
        return _served(served, deployment, prompt, output, devices, why)
    concurrency = asked.concurrency or asked.batch or math.inf
    if concurrency == math.inf:
        served = saturated(deployment, prompt, output, asked.requests)
    else:
        served = closed_loop(deployment, concurrency, prompt, output)
    return _served(served, deployment, prompt, output, devices)


def _lengths(asked: Question, needed: tuple[str, ...]) -> tuple[float, float, tuple[str, ...]]:
    """Return the tokens of a prompt and of an answer, and what is assumed of them."""
    given = {"isl": asked.prompt, "osl": asked.output}
    lacking = [name for name in needed if not given[name]]
    if lacking:
        raise ParframeError(
            "usage",
            f"column {lacking[0]}",
            f"says nothing, and {asked.metric} hangs on it",
            f"give {' and '.join(lacking)}, in tokens",
        )
    prompt, output = asked.prompt or 0.0, asked.output or USUAL_OUTPUT
    taken = {"isl": prompt, "osl": output}
    untold = tuple(f"{n} is not given: taken for {taken[n]:g}" for n in given if not given[n])
    return prompt, output, untold


def _batch(rows: float, deployment: Deployment, prompt: float, output: float, devices: int) -> Seen:
    batch = static_batch(deployment, rows, prompt, output)
    rate = Estimate(rows / batch.whole.value, batch.whole.log_std, batch.whole.notes)
    read = decode_bytes(deployment, rows / batch.waves, prompt + output / 2)
    return Seen(batch.first, batch.token, batch.whole, rate, rows, prompt, output, devices, read)


def _served(
    served: Served,
    deployment: Deployment,
    prompt: float,
    output: float,
    devices: int,
    why: tuple[str, ...] = (),
) -> Seen:
    first = served.first.widened(0.0, *why) if served.first else None
    whole = served.token * output
    if first:
        whole = first + served.token * max(output - 1, 0)
    rate = attrs.evolve(served.rate, notes=joined(served.why, served.rate.notes))
    token = attrs.evolve(served.token, notes=joined(served.why, served.token.notes))
    read = decode_bytes(deployment, served.rows, prompt + output / 2)
    return Seen(
        first, token, whole, rate, served.rows, prompt, output, devices, read, served.offered
    )


def _first(view: Seen) -> Estimate:
    if view.first is None:
        raise ParframeError(
            "usage",
            "a first token's time",
            "with as many requests as can be in flight it is that of a queue, which grows",
            "give a concurrency, or a rate and how many requests",
        )
    return view.first


def _scaled(time: Estimate, amount: float) -> Estimate:
    """An amount a second, of the time that it takes."""
    return Estimate(amount / time.value, time.log_std, time.notes)


METRICS: Mapping[str, Metric] = {
    "output_tokens_per_s_total": Metric("rate", "tokens/s", lambda v: v.rate * v.output),
    "output_tokens_per_s_per_gpu": Metric(
        "rate", "tokens/s", lambda v: v.rate * (v.output / v.devices)
    ),
    "total_tokens_per_s": Metric("rate", "tokens/s", lambda v: v.rate * (v.prompt + v.output)),
    "total_tokens_per_s_per_gpu": Metric(
        "rate", "tokens/s", lambda v: v.rate * ((v.prompt + v.output) / v.devices)
    ),
    "requests_per_s": Metric("rate", "req/s", lambda v: v.rate),
    "decode_tokens_per_s": Metric("token", "tokens/s", lambda v: _scaled(v.token, v.rows)),
    "prefill_tokens_per_s": Metric(
        "first", "tokens/s", lambda v: _scaled(_first(v), v.rows * v.prompt)
    ),
    "output_tokens_per_s_per_user": Metric("token", "tokens/s", lambda v: _scaled(v.token, 1.0)),
    "achieved_mem_bw_per_gpu": Metric("token", "GB/s", lambda v: _scaled(v.token, v.read)),
    "ttft": Metric("first", "s", _first),
    "tpot": Metric("token", "s", lambda v: v.token),
    "e2e_latency": Metric("whole", "s", lambda v: v.whole),
}
"""Metrics by their name; times in seconds, rates a second, traffic in bytes a second."""

NAMES: Mapping[str, str] = {
    "throughput": "output_tokens_per_s_total",
    "output_throughput": "output_tokens_per_s_total",
    "output_tokens_per_s": "output_tokens_per_s_total",
    "tokens_per_s": "output_tokens_per_s_total",
    "generation_throughput": "output_tokens_per_s_total",
    "tokens_per_s_per_gpu": "output_tokens_per_s_per_gpu",
    "total_throughput": "total_tokens_per_s",
    "request_throughput": "requests_per_s",
    "tokens_per_s_per_user": "output_tokens_per_s_per_user",
    "prefill_latency": "ttft",
    "time_to_first_token": "ttft",
    "itl": "tpot",
    "inter_token_latency": "tpot",
    "time_per_output_token": "tpot",
    "decode_latency": "tpot",
    "token_latency": "tpot",
    "latency": "e2e_latency",
    "total_latency": "e2e_latency",
    "request_latency": "e2e_latency",
}
"""Other names of metrics; a leading ``mean_``, ``median_``, ``avg_`` or ``p50_`` does not count."""

UNITS: Mapping[str, float] = {
    "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6,
    "tokens/s": 1.0, "tok/s": 1.0, "tokens/s/gpu": 1.0, "tok/s/gpu": 1.0, "tokens/s/user": 1.0,
    "req/s": 1.0, "requests/s": 1.0,
    "gb/s": 1e9, "tb/s": 1e12, "b/s": 1.0,
}  # fmt: skip
"""What a unit is of seconds, of tokens or requests a second, of bytes a second."""


def metric_name(name: str) -> str:
    """Return the metric that a name stands for.

    Raises
    ------
    ParframeError
        Of kind `usage`, if none is known by that name.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
    plain = re.sub(r"^(mean|median|avg|average|p50)_", "", plain)
    plain = NAMES.get(plain, plain)
    if plain in METRICS:
        return plain
    raise ParframeError(
        "usage",
        "column metric",
        f"{name[:60]!r} is not one that is predicted{did_you_mean(plain, METRICS)}",
        f"ask one of {', '.join(METRICS)}",
    )


def unit_size(unit: str, metric: Metric) -> float:
    """Return what a row's unit, or the metric's own, is of the basic one.

    Raises
    ------
    ParframeError
        Of kind `usage`, if it is none of this metric.
    """
    asked = (unit or metric.unit).strip().lower().replace(" ", "")
    times = {"s", "sec", "seconds", "ms", "us"}
    traffic = {"gb/s", "tb/s", "b/s"}
    own = metric.unit.lower()
    family = next((one for one in (times, traffic) if own in one), set(UNITS) - times - traffic)
    if asked not in family:
        raise ParframeError(
            "usage", "column unit", f"{unit[:30]!r} is no unit of it", f"give {metric.unit}"
        )
    return UNITS[asked]

"""Candidates of a choice: whether a composite fits, and its figures at every concurrency."""

from __future__ import annotations

import math

import attrs

from parframe.price.choose.setup import ServingSetup
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.estimate import Estimate
from parframe.price.predict.metrics import MetricKind
from parframe.price.predict.prediction_intervals import with_engine_error
from parframe.price.serving.capacity import GIB
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.steady_state import (
    activation_tokens,
    max_concurrency,
    predict_closed_loop,
)

COARSE_STEP, FINE_STEP = 4.0, 2.0
"""Ratio of successive concurrencies: for all candidates, and for those that are shown."""


@attrs.frozen
class OperatingPoint:
    """Latencies in seconds and output tokens per second of all devices at one concurrency."""

    concurrency: float
    ttft: Estimate
    tpot: Estimate
    output_rate: Estimate
    devices: int

    @property
    def rate_per_user(self) -> float:
        """Tokens per second of one user."""
        return 1 / self.tpot.value

    @property
    def rate_per_device(self) -> float:
        """Output tokens per second of one device."""
        return self.output_rate.value / self.devices

    def violations(self, use: UseCase) -> list[str]:
        """Return a description of each limit that it violates."""
        limits = (("TTFT", self.ttft.value, use.max_ttft), ("TPOT", self.tpot.value, use.max_tpot))
        return [
            f"{name} {value * 1e3:.3g} ms exceeds the limit of {limit * 1e3:g} ms"
            for name, value, limit in limits
            if limit is not None and value > limit
        ]


@attrs.frozen
class Candidate:
    """A composite that fits, with its figures from concurrency 1 up to the maximum."""

    composite: str
    deployment: Deployment = attrs.field(repr=False)
    max_concurrency: float
    limited_by: str
    points: tuple[OperatingPoint, ...]

    def point_of(self, use: UseCase) -> OperatingPoint:
        """Return its figures at the concurrency of a use case, or at the maximum if lower."""
        concurrency = min(use.concurrency, self.max_concurrency)
        return operating_point(self.deployment, concurrency, use)


def why_excluded(deployment: Deployment, use: UseCase) -> str | None:
    """Return why a deployment does not fit into memory, or None if it fits."""
    memory, reserved = deployment.memory, deployment.engine.reserved_bytes
    weights = max(memory.weight_bytes(stage.footprint) for stage in deployment.work.stages)
    if memory.total - weights - reserved <= 0:
        return (
            f"weights need {weights / GIB:.1f} GiB, and a device has {memory.total / GIB:.1f} GiB, "
            f"of which the engine reserves {reserved / GIB:.1f} GiB"
        )
    length = use.prompt_tokens + use.output_tokens
    tokens = activation_tokens(deployment, use.prompt_tokens)
    if deployment.capacity(length, tokens) < 1:
        return f"the KV cache of one sequence of {length:g} tokens does not fit next to the weights"
    return None


def make_candidate(composite: str, deployment: Deployment, use: UseCase) -> Candidate | str:
    """Return a candidate, or the reason why it does not fit into memory."""
    why = why_excluded(deployment, use)
    if why is not None:
        return why
    maximum, limit = max_concurrency(deployment, use.prompt_tokens, use.output_tokens)
    maximum = max(maximum, 1.0)
    points = tuple(
        operating_point(deployment, concurrency, use)
        for concurrency in _concurrencies(maximum, COARSE_STEP)
    )
    return Candidate(composite, deployment, maximum, limit, points)


def with_more_points(candidate: Candidate, use: UseCase) -> Candidate:
    """Return a candidate with figures at more concurrencies."""
    known = {point.concurrency: point for point in candidate.points}
    concurrencies = sorted({*_concurrencies(candidate.max_concurrency, FINE_STEP), *known})
    points = tuple(
        known.get(concurrency) or operating_point(candidate.deployment, concurrency, use)
        for concurrency in concurrencies
    )
    return attrs.evolve(candidate, points=points)


def with_intervals(
    point: OperatingPoint, deployment: Deployment, setup: ServingSetup
) -> OperatingPoint:
    """Return a point with the prediction intervals of its engine for this model and device."""
    device = setup.cluster.machine.device.key

    def widen(kind: MetricKind, estimate: Estimate) -> Estimate:
        return with_engine_error(kind, estimate, deployment, setup.model, device)

    return attrs.evolve(
        point,
        ttft=widen("ttft", point.ttft),
        tpot=widen("tpot", point.tpot),
        output_rate=widen("throughput", point.output_rate),
    )


def _concurrencies(maximum: float, ratio: float) -> list[float]:
    """Return concurrencies from one to the maximum, each so many times the one before."""
    powers = range(math.ceil(math.log(maximum, ratio) - 1e-9))
    return [*(ratio**power for power in powers), maximum]


def operating_point(deployment: Deployment, concurrency: float, use: UseCase) -> OperatingPoint:
    """Return the figures of a deployment at a concurrency."""
    prompt, output = use.prompt_tokens, use.output_tokens
    state = predict_closed_loop(deployment, concurrency, prompt, output)
    ttft = state.ttft or Estimate(math.inf, 0.0, ("TTFT cannot be predicted",))
    output_rate = state.request_rate * output
    return OperatingPoint(concurrency, ttft, state.tpot, output_rate, deployment.work.devices)

"""Ranking of all valid composites by an objective, under the limits of a use case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import attrs

from parframe.errors import ParframeError
from parframe.mesh.composite_enumeration import enumerate_composites
from parframe.price.choose.candidates import (
    Candidate,
    OperatingPoint,
    make_candidate,
    operating_point,
    why_excluded,
    with_intervals,
    with_more_points,
)
from parframe.price.choose.setup import ServingSetup, deploy
from parframe.price.choose.use_cases import UseCase
from parframe.price.work.work import Work

Objective = Literal["throughput", "latency", "cost"]
"""Highest output tok/s, lowest latency of a request, or fewest device-seconds per token."""

REFINED = 10
"""Number of the best candidates that get figures at more concurrencies."""

MAX_DEVICES = 1 << 14
"""Maximum number of devices."""

MAX_SEARCH, MAX_DENSE_SEARCH = 1 << 10, 1 << 6
"""Maximum number of devices in the search for a larger cluster; up to the second number, every
number is tried, beyond it powers of two."""


@attrs.frozen
class RankedComposite:
    """A candidate at the concurrency of the objective, with the limits it violates there."""

    candidate: Candidate
    point: OperatingPoint
    violations: tuple[str, ...] = ()

    @property
    def composite(self) -> str:
        """Name of the composite."""
        return self.candidate.composite


@attrs.frozen
class Choice:
    """Ranked composites of a model for a use case, an objective and a serving setup.

    The best composite is first; those that violate limits come last. ``excluded`` has the reasons
    why the other composites are not ranked.
    """

    use: UseCase
    objective: Objective
    setup: ServingSetup
    ranked: tuple[RankedComposite, ...]
    excluded: Mapping[str, str]

    @property
    def best(self) -> RankedComposite | None:
        """Best composite; None if no composite meets the limits."""
        first = self.ranked[0] if self.ranked else None
        return first if first is not None and not first.violations else None

    def pareto_front(self) -> list[tuple[RankedComposite, OperatingPoint]]:
        """Return the points that no other exceeds in both tok/s/user and tok/s/device."""
        points = [(ranked, point) for ranked in self.ranked for point in ranked.candidate.points]
        points.sort(key=lambda pair: (-pair[1].rate_per_user, -pair[1].rate_per_device))
        front: list[tuple[RankedComposite, OperatingPoint]] = []
        highest = 0.0
        for ranked, point in points:
            if point.rate_per_device > highest:
                highest = point.rate_per_device
                front.append((ranked, point))
        return front


def rank_composites(
    work: Callable[[str], Work],
    setup: ServingSetup,
    use: UseCase,
    codes: Sequence[str],
    objective: Objective = "throughput",
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Estimate every composite and rank them.

    ``work`` returns the work of a composite, and raises `ParframeError` for an invalid one.
    Objectives are ``throughput``: highest output tok/s at any concurrency that meets the limits;
    ``latency``: lowest latency of a request at the use case's concurrency; ``cost``: fewest
    device-seconds per token there. ``progress`` is called with the number of priced composites and
    the number of all.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if there is no composite to choose from.
    """
    if setup.cluster.devices > MAX_DEVICES:
        raise ParframeError(
            "choice",
            setup.cluster_label,
            f"choosing supports {MAX_DEVICES:,} devices at most",
            "choose for a part of the devices and replicate it",
        )
    names = enumerate_composites(setup.cluster.devices, codes)

    def order(ranked: RankedComposite) -> tuple[bool, float]:
        point = ranked.point
        latency = point.ttft.value + point.tpot.value * (use.output_tokens - 1)
        value = latency if objective == "latency" else -point.output_rate.value
        return bool(ranked.violations), value

    with _paused_garbage_collection():
        ranked, excluded = _estimate_all(names, work, setup, use, objective, progress)
        ranked.sort(key=order)
        refined = [
            _at_best_point(with_more_points(one.candidate, use), use, objective)
            for one in ranked[:REFINED]
        ]
    ranked = sorted([*refined, *ranked[REFINED:]], key=order)
    widened = tuple(
        attrs.evolve(one, point=with_intervals(one.point, one.candidate.deployment, setup))
        for one in ranked
    )
    return Choice(use, objective, setup, widened, excluded)


@contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which takes a fifth of the time and finds few cycles here."""
    import gc

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _estimate_all(
    names: Sequence[str],
    work: Callable[[str], Work],
    setup: ServingSetup,
    use: UseCase,
    objective: Objective,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[RankedComposite], dict[str, str]]:
    """Return the composites that fit, and the reasons why others are excluded."""
    clock = setup.clock()
    ranked: list[RankedComposite] = []
    excluded: dict[str, str] = {}
    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names))
        try:
            composite_work = work(name)
        except ParframeError as error:
            excluded[name] = f"{error.where}: {error.what}"
            continue
        candidate = make_candidate(name, deploy(composite_work, setup, clock), use)
        if isinstance(candidate, str):
            excluded[name] = candidate
        else:
            ranked.append(_at_best_point(candidate, use, objective))
    return ranked, excluded


def find_larger_cluster(
    work: Callable[[str], Work], setup: ServingSetup, use: UseCase, codes: Sequence[str]
) -> tuple[int, str] | None:
    """Return the smallest larger number of devices that a composite fits, and that composite.

    Every number is tried up to a few nodes, and powers of two beyond. The search begins at the
    number of devices whose memory is at least that of the weights and the KV cache of a sequence.
    """
    first = max(setup.cluster.devices + 1, _lower_bound(work(f"{codes[-1]}1"), setup, use))
    powers = (1 << power for power in range(MAX_DENSE_SEARCH.bit_length(), MAX_SEARCH.bit_length()))
    for count in (
        *range(first, MAX_DENSE_SEARCH + 1),
        *(count for count in powers if count >= first),
    ):
        composite = _find_fitting_composite(count, work, setup, use, codes)
        if composite is not None:
            return count, composite
    return None


def _lower_bound(whole: Work, setup: ServingSetup, use: UseCase) -> int:
    """Return the number of devices that weights and the KV cache of a sequence need at least."""
    deployment = deploy(whole, setup)
    memory, length = deployment.memory, use.prompt_tokens + use.output_tokens
    needed = sum(
        memory.weight_bytes(stage.footprint) + memory.sequence_bytes(stage.footprint, length)
        for stage in deployment.work.stages
    )
    available = memory.total - deployment.engine.reserved_bytes
    return math.ceil(needed / available) if available > 0 else MAX_SEARCH + 1


def _find_fitting_composite(
    devices: int,
    work: Callable[[str], Work],
    setup: ServingSetup,
    use: UseCase,
    codes: Sequence[str],
) -> str | None:
    """Return a composite of so many devices that fits into memory, or None."""
    larger = attrs.evolve(setup, cluster=attrs.evolve(setup.cluster, devices=devices))
    clock = larger.clock()
    for name in enumerate_composites(devices, codes):
        try:
            deployment = deploy(work(name), larger, clock)
        except ParframeError:
            continue
        if why_excluded(deployment, use) is None:
            return name
    return None


def _at_best_point(candidate: Candidate, use: UseCase, objective: Objective) -> RankedComposite:
    """Return a candidate at its best point, or at the point that violates the limits least."""
    if objective != "throughput":
        point = candidate.point_of(use)
        return RankedComposite(candidate, point, tuple(point.violations(use)))
    valid = [point for point in candidate.points if not point.violations(use)]
    if valid:
        best = max(valid, key=lambda point: point.output_rate.value)
        return RankedComposite(candidate, _refine_point(candidate, best, use))
    point = min(candidate.points, key=lambda point: _excess(point, use))
    return RankedComposite(candidate, point, tuple(point.violations(use)))


def _refine_point(candidate: Candidate, best: OperatingPoint, use: UseCase) -> OperatingPoint:
    """Search between a point and the next for a better one that meets the limits, by bisection."""
    low = best.concurrency
    high = next((p.concurrency for p in candidate.points if p.concurrency > best.concurrency), 0.0)
    while high - low > max(1.0, low / 32):
        middle = operating_point(candidate.deployment, float(round((low + high) / 2)), use)
        if not middle.violations(use):
            low = middle.concurrency
            best = max(best, middle, key=lambda point: point.output_rate.value)
        else:
            high = middle.concurrency
    return best


def _excess(point: OperatingPoint, use: UseCase) -> float:
    """Return the largest ratio of a latency to its limit."""
    limits = ((point.ttft.value, use.max_ttft), (point.tpot.value, use.max_tpot))
    return max((value / limit for value, limit in limits if limit is not None), default=0.0)

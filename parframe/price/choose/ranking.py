"""Which composite to use: all legal ones, priced, ranked by an objective under limits."""

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
    Point,
    Setting,
    candidate,
    deployed,
    excluded,
    finer,
    judged_point,
    point,
)
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.cluster_timer import MeasuredClock
from parframe.price.work.work import Work

Objective = Literal["throughput", "latency", "cost"]
"""What is best: most tokens a second, quickest answers, or fewest device-seconds a token."""

FINER = 10
"""How many of the best are looked at more closely."""

MOST_DEVICES = 1 << 14
"""For how many devices composites are priced."""

MOST_TRIED, ALL_TRIED = 1 << 10, 1 << 6
"""Up to how many devices are tried, and each number of them, where those that there are do not
suffice."""


@attrs.frozen
class Ranked:
    """A candidate with the point at which it is best.

    Parameters
    ----------
    candidate
        The composite.
    point
        It at the number of requests in flight that the objective asks for.
    broken
        Which limits it breaks even there; none if it keeps them all.
    """

    candidate: Candidate
    point: Point
    broken: tuple[str, ...] = ()

    @property
    def composite(self) -> str:
        """The composite's name."""
        return self.candidate.composite


@attrs.frozen
class Choice:
    """What came of choosing.

    Parameters
    ----------
    use, objective, setting
        What was asked.
    ranked
        The composites that fit, the best first; those that break limits come last.
    excluded
        Why others are not among them, by composite.
    """

    use: UseCase
    objective: Objective
    setting: Setting
    ranked: tuple[Ranked, ...]
    excluded: Mapping[str, str]

    @property
    def best(self) -> Ranked | None:
        """The winner; None if no composite keeps the limits."""
        first = self.ranked[0] if self.ranked else None
        return first if first is not None and not first.broken else None

    def front(self) -> list[tuple[Ranked, Point]]:
        """Give the Pareto front: no other gives a user and a device more tokens a second."""
        every = [(one, at) for one in self.ranked for at in one.candidate.points]
        every.sort(key=lambda pair: (-pair[1].per_user, -pair[1].per_device))
        found: list[tuple[Ranked, Point]] = []
        most = 0.0
        for one, at in every:
            if at.per_device > most:
                most = at.per_device
                found.append((one, at))
        return found


def choose(
    work: Callable[[str], Work],
    setting: Setting,
    use: UseCase,
    codes: Sequence[str],
    objective: Objective = "throughput",
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Price every composite and rank them.

    Parameters
    ----------
    work
        Gives what a composite asks of its devices; raises `ParframeError` where it is not legal.
    setting
        Devices, dtypes and engine.
    use
        Lengths, requests in flight and limits.
    codes
        The strategies.
    objective
        ``throughput``: most tokens a second at any number in flight that keeps the limits;
        ``latency``: the shortest answer at the use's number in flight; ``cost``: fewest
        device-seconds a token at the use's number in flight.
    progress
        Told how many of how many composites are done.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if there is nothing to choose from.
    """
    if setting.cluster.devices > MOST_DEVICES:
        raise ParframeError(
            "choice",
            setting.place,
            f"composites are priced for {MOST_DEVICES:,} devices at most",
            "choose for a part of them, and repeat it",
        )
    names = enumerate_composites(setting.cluster.devices, codes)
    order = _order(objective, use)
    with _collecting_nothing():
        found, left = _priced(names, work, setting, use, objective, progress)
        found.sort(key=order)
        best = [_placed(finer(one.candidate, use), use, objective) for one in found[:FINER]]
    ranked = [
        attrs.evolve(one, point=judged_point(one.point, one.candidate.deployment, setting))
        for one in sorted([*best, *found[FINER:]], key=order)
    ]
    return Choice(use, objective, setting, tuple(ranked), left)


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Pause the collection of cycles: there are few, and looking for them takes a fifth of all."""
    import gc

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _priced(
    names: Sequence[str],
    work: Callable[[str], Work],
    setting: Setting,
    use: UseCase,
    objective: Objective,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Ranked], dict[str, str]]:
    """Price composites; those that cannot be, with why."""
    clock = MeasuredClock(setting.cluster, setting.dtypes, setting.implementation)
    found: list[Ranked] = []
    left: dict[str, str] = {}
    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names))
        try:
            asked = work(name)
        except ParframeError as fault:
            left[name] = f"{fault.where}: {fault.what}"
            continue
        priced = candidate(name, deployed(asked, setting, clock), use)
        if isinstance(priced, str):
            left[name] = priced
        else:
            found.append(_placed(priced, use, objective))
    return found, left


def fewest_devices(
    work: Callable[[str], Work], setting: Setting, use: UseCase, codes: Sequence[str]
) -> tuple[int, str] | None:
    """Give the smallest number of devices that a composite fits, and that composite.

    Every number is tried up to a few nodes, and powers of two beyond, from what weights and the
    cache of one sequence take however they are divided.
    """
    least = max(setting.cluster.devices + 1, _least(work(f"{codes[-1]}1"), setting, use))
    larger = (1 << power for power in range(ALL_TRIED.bit_length(), MOST_TRIED.bit_length()))
    for count in (*range(least, ALL_TRIED + 1), *(many for many in larger if many >= least)):
        found = _fitting(count, work, setting, use, codes)
        if found is not None:
            return count, found
    return None


def _least(whole: Work, setting: Setting, use: UseCase) -> int:
    """Devices that the weights of a model and the cache of a sequence take at least."""
    deployment = deployed(whole, setting)
    room, length = deployment.room, use.prompt + use.output
    needed = sum(
        room.weights(stage.footprint) + room.row(stage.footprint, length)
        for stage in deployment.work.stages
    )
    left = room.memory - deployment.engine.reserve
    return math.ceil(needed / left) if left > 0 else MOST_TRIED + 1


def _fitting(
    devices: int,
    work: Callable[[str], Work],
    setting: Setting,
    use: UseCase,
    codes: Sequence[str],
) -> str | None:
    """A composite for so many devices that memory holds, if there is one."""
    other = attrs.evolve(setting, cluster=attrs.evolve(setting.cluster, devices=devices))
    clock = MeasuredClock(other.cluster, other.dtypes, other.implementation)
    for name in enumerate_composites(devices, codes):
        try:
            deployment = deployed(work(name), other, clock)
        except ParframeError:
            continue
        if excluded(deployment, use) is None:
            return name
    return None


def _placed(priced: Candidate, use: UseCase, objective: Objective) -> Ranked:
    """A candidate at its best point, or where it comes nearest to the limits."""
    if objective != "throughput":
        at = priced.at(use)
        return Ranked(priced, at, tuple(at.broken(use)))
    keeping = [at for at in priced.points if at.keeps(use)]
    if keeping:
        return Ranked(priced, _between(priced, max(keeping, key=lambda at: at.rate.value), use))
    at = min(priced.points, key=lambda at: _excess(at, use))
    return Ranked(priced, at, tuple(at.broken(use)))


def _between(priced: Candidate, best: Point, use: UseCase) -> Point:
    """Look between a point and the next for more that keeps the limits still, by halving."""
    low, high = best.rows, next((at.rows for at in priced.points if at.rows > best.rows), 0.0)
    while high - low > max(1.0, low / 32):
        middle = point(priced.deployment, float(round((low + high) / 2)), use)
        if middle.keeps(use):
            low, best = middle.rows, max(best, middle, key=lambda at: at.rate.value)
        else:
            high = middle.rows
    return best


def _excess(at: Point, use: UseCase) -> float:
    """How many times the limits are broken, at most."""
    shares = [
        value / limit
        for value, limit in ((at.first.value, use.first), (at.token.value, use.token))
        if limit is not None
    ]
    return max(shares, default=0.0)


def _order(objective: Objective, use: UseCase) -> Callable[[Ranked], tuple[bool, float]]:
    def key(one: Ranked) -> tuple[bool, float]:
        at = one.point
        if objective == "latency":
            return bool(one.broken), at.first.value + at.token.value * (use.output - 1)
        return bool(one.broken), -at.rate.value

    return key

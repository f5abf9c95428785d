"""One composite on one cluster: whether it fits, and how it serves at every number in flight."""

from __future__ import annotations

import math

import attrs

from parframe.hardware import Cluster, Span
from parframe.price.choose.use_cases import UseCase
from parframe.price.cost.cluster_timer import MeasuredClock
from parframe.price.cost.communication_times import implementation_of
from parframe.price.cost.dtypes import Dtypes
from parframe.price.cost.estimate import Estimate
from parframe.price.predict.metrics import Kind
from parframe.price.predict.prediction_intervals import judged
from parframe.price.predict.query_resolution import with_all_logits, without_windows
from parframe.price.serving.device_memory import Room
from parframe.price.serving.engines import Engine
from parframe.price.serving.steady_state import Deployment, closed_loop, most_rows
from parframe.price.work.work import Stage, Work

COARSE, FINE = 4.0, 2.0
"""How far apart numbers in flight are: of all candidates, and of those that are shown."""


@attrs.frozen
class Point:
    """A candidate at one number of requests in flight.

    Parameters
    ----------
    rows
        Requests in flight over the whole deployment.
    first, token
        Seconds to the first token, and of every later one.
    rate
        Output tokens a second, of all devices together.
    devices
        How many devices.
    """

    rows: float
    first: Estimate
    token: Estimate
    rate: Estimate
    devices: int

    @property
    def per_user(self) -> float:
        """Tokens a second that a user sees."""
        return 1 / self.token.value

    @property
    def per_device(self) -> float:
        """Output tokens a second of a device."""
        return self.rate.value / self.devices

    def keeps(self, use: UseCase) -> bool:
        """Whether it keeps the limits of a use."""
        return not self.broken(use)

    def broken(self, use: UseCase) -> list[str]:
        """Say which limits it breaks."""
        limits = (
            ("first token", self.first.value, use.first),
            ("token", self.token.value, use.token),
        )
        return [
            f"{name} {value * 1e3:.3g} ms, limit {limit * 1e3:g} ms"
            for name, value, limit in limits
            if limit is not None and value > limit
        ]


@attrs.frozen
class Candidate:
    """A composite, what it needs, and how it serves.

    Parameters
    ----------
    composite
        Its name.
    deployment
        It, on the devices, under the engine.
    most
        Requests in flight at most.
    limit
        What limits them.
    points
        How it serves, from one request in flight up to the most.
    """

    composite: str
    deployment: Deployment = attrs.field(repr=False)
    most: float
    limit: str
    points: tuple[Point, ...]

    def at(self, use: UseCase) -> Point:
        """It at the number in flight of a use, or the most there can be."""
        wanted = min(use.concurrency, self.most)
        return point(self.deployment, wanted, use)


@attrs.frozen
class Setting:
    """What all candidates of a choice have in common.

    Parameters
    ----------
    cluster
        The devices.
    dtypes
        Of weights and cache.
    engine
        What serves.
    implementation
        Whose collectives.
    model
        The usual name of the model, by which it is known whether an engine was measured with it.
    """

    cluster: Cluster
    dtypes: Dtypes
    engine: Engine
    implementation: str
    model: str = ""

    @classmethod
    def of(cls, cluster: Cluster, dtypes: Dtypes, engine: Engine, model: str = "") -> Setting:
        """Take the collectives that the engine uses."""
        return cls(cluster, dtypes, engine, implementation_of(engine.name), model)

    @property
    def place(self) -> str:
        """The devices in words."""
        machine = self.cluster.machine
        return f"{self.cluster.devices} x {machine.device.name}" + (
            f" ({machine.name})" if machine.name != machine.device.name else ""
        )


def deployed(work: Work, setting: Setting, clock: MeasuredClock | None = None) -> Deployment:
    """Put the work of a plan on the devices.

    Parameters
    ----------
    work
        What a step of the plan asks.
    setting
        Devices, dtypes and engine.
    clock
        That of the setting; shared, it computes equal kernels of many plans once.
    """
    device = setting.cluster.machine.device
    dtypes = setting.dtypes
    room = Room.of(device.usable, dtypes.weights, dtypes.cache)
    own = clock or MeasuredClock(setting.cluster, dtypes, setting.implementation)
    work = work if setting.engine.windows else without_windows(work)
    work = with_all_logits(work) if setting.engine.all_logits else work
    return Deployment(alike(work, setting.cluster), own, setting.engine, room)


def alike(work: Work, cluster: Cluster) -> Work:
    """Give the same work with one object for all stages that take as long as each other.

    The ranks of a group tell which links it spans and nothing else, so that the first group that
    spans some links stands for all that do.
    """
    groups: dict[Span, tuple[int, ...]] = {}
    stages: dict[Stage, Stage] = {}
    found = []
    for stage in work.stages:
        exchanges = tuple(
            attrs.evolve(one, ranks=groups.setdefault(cluster.span(one.ranks), one.ranks))
            for one in stage.communication
        )
        same = Stage(stage.kernels, exchanges, stage.footprint)
        found.append(stages.setdefault(same, same))
    return attrs.evolve(work, stages=tuple(found))


def shortage(deployment: Deployment) -> str | None:
    """Say by how much the weights do not fit, or None where they do."""
    room = deployment.room
    needed = max(room.weights(stage.footprint) for stage in deployment.work.stages)
    left = room.memory - needed - deployment.engine.reserve
    if left > 0:
        return None
    return (
        f"weights take {needed / 1e9:.1f} GB of a device's {room.memory / 1e9:.1f}, "
        f"and the engine keeps {deployment.engine.reserve / 1e9:.1f}"
    )


def excluded(deployment: Deployment, use: UseCase) -> str | None:
    """Say why memory excludes it, or None where it does not."""
    short = shortage(deployment)
    if short is not None:
        return short
    tokens = min(deployment.engine.tokens, max(2048.0, use.prompt))
    held = deployment.capacity(use.prompt + use.output, tokens)
    if held < 1:
        return (
            f"memory holds no sequence of {use.prompt + use.output:g} positions beside the weights"
        )
    return None


def candidate(composite: str, deployment: Deployment, use: UseCase) -> Candidate | str:
    """Give a candidate, or say why memory excludes it."""
    why = excluded(deployment, use)
    if why is not None:
        return why
    most, limit = most_rows(deployment, use.prompt, use.output)
    most = max(most, 1.0)
    points = tuple(point(deployment, rows, use) for rows in _counts(most, COARSE))
    return Candidate(composite, deployment, most, limit, points)


def finer(one: Candidate, use: UseCase) -> Candidate:
    """A candidate with more points."""
    known = {at.rows: at for at in one.points}
    counts = sorted({*_counts(one.most, FINE), *known})
    points = tuple(known.get(rows) or point(one.deployment, rows, use) for rows in counts)
    return attrs.evolve(one, points=points)


def judged_point(at: Point, deployment: Deployment, setting: Setting) -> Point:
    """A point with the intervals that figures of its engine have, with this model and device."""
    device = setting.cluster.machine.device.key

    def own(kind: Kind, estimate: Estimate) -> Estimate:
        return judged(kind, estimate, deployment, setting.model, device)

    return attrs.evolve(
        at,
        first=own("first", at.first),
        token=own("token", at.token),
        rate=own("rate", at.rate),
    )


def _counts(most: float, factor: float) -> list[float]:
    """Numbers in flight from one to the most, each so many times the one before."""
    powers = range(math.ceil(math.log(most, factor) - 1e-9))
    return [*(factor**power for power in powers), most]


def point(deployment: Deployment, rows: float, use: UseCase) -> Point:
    """Give how it serves so many requests in flight."""
    served = closed_loop(deployment, rows, use.prompt, use.output)
    first = served.first or Estimate(math.inf, 0.0, ("nothing is known of the first token",))
    return Point(rows, first, served.token, served.rate * use.output, deployment.work.devices)

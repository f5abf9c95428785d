"""Serving setup that all candidates of a choice share, and the deployment of a plan in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from parframe.hardware import Cluster, Span
from parframe.price.cost.cluster_timer import ClusterTimer
from parframe.price.cost.communication_times import implementation_of
from parframe.price.cost.dtypes import Dtypes
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.serving.engine_work import with_all_logits, without_windows
from parframe.price.serving.engines import Engine, find_engine_on
from parframe.price.serving.hardware_lookup import find_cluster
from parframe.price.work.work import Stage, Work


@attrs.frozen
class ServingSetup:
    """Cluster, dtypes and engine that serve a model.

    Intervals depend on whether the engine was measured with the model of this usual name.
    """

    cluster: Cluster
    dtypes: Dtypes
    engine: Engine
    model: str = ""

    @property
    def cluster_label(self) -> str:
        """Number and name of the devices."""
        machine = self.cluster.machine
        return f"{self.cluster.devices} x {machine.device.name}" + (
            f" ({machine.name})" if machine.name != machine.device.name else ""
        )

    def clock(self) -> ClusterTimer:
        """Return the times of kernels and of the engine's collectives in this setup."""
        return ClusterTimer(self.cluster, self.dtypes, implementation_of(self.engine.name))


def find_setup(
    devices: str,
    weights: str,
    cache: str,
    engine: str = "",
    hardware: Iterable[Path] = (),
    model: str = "",
) -> ServingSetup:
    """Find the devices and the engine by their names; ``model`` is the model's usual name."""
    cluster = find_cluster(devices, hardware)
    return ServingSetup(
        cluster, Dtypes(weights, cache), find_engine_on(cluster.machine, engine), model
    )


def deploy(work: Work, setup: ServingSetup, clock: ClusterTimer | None = None) -> Deployment:
    """Return the deployment of a plan; a shared clock computes equal kernels once."""
    device, dtypes, engine = setup.cluster.machine.device, setup.dtypes, setup.engine
    memory = DeviceMemory.with_dtypes(device.usable, dtypes.weights, dtypes.cache)
    work = work if engine.sliding_window else without_windows(work)
    work = with_all_logits(work) if engine.all_logits else work
    work = share_equal_stages(work, setup.cluster)
    return Deployment(work, clock or setup.clock(), engine, memory)


def share_equal_stages(work: Work, cluster: Cluster) -> Work:
    """Return the same work with one object for all stages that take equal time.

    The time of a collective depends only on the links that its group spans, so the first group
    over some links replaces all other groups over the same links.
    """
    groups: dict[Span, tuple[int, ...]] = {}
    stages: dict[Stage, Stage] = {}
    shared = []
    for stage in work.stages:
        communication = tuple(
            attrs.evolve(
                operator, ranks=groups.setdefault(cluster.span(operator.ranks), operator.ranks)
            )
            for operator in stage.communication
        )
        equal = Stage(stage.kernels, communication, stage.footprint)
        shared.append(stages.setdefault(equal, equal))
    return attrs.evolve(work, stages=tuple(shared))

"""Resolution of a query: its names become a deployment, with notes on what is assumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs

from parframe.errors import ParframeError
from parframe.hardware import Catalog, Cluster
from parframe.hardware.machine import Machine
from parframe.price.cost.cluster_timer import ClusterTimer
from parframe.price.cost.communication_times import implementation_of
from parframe.price.cost.dtypes import Dtypes
from parframe.price.predict.queries import Query
from parframe.price.serving.capacity import GIB
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.serving.engine_work import without_windows
from parframe.price.serving.engines import Engine, find_engine, shipped_engines
from parframe.price.serving.hardware_lookup import load_catalog
from parframe.price.work.work import Work


@attrs.frozen
class Layout:
    """Degrees of parallelism of one instance of a model.

    It has ``tensor * pipeline * data`` devices; the experts are sharded over ``expert`` of them.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1


@attrs.frozen
class ServableModel:
    """A model, the dtype of its weights, and a function that returns its work in any layout."""

    name: str
    weights: str
    work: Callable[[Layout], Work]


@attrs.frozen
class Registry:
    """Models, hardware and engines that queries may name.

    ``model`` finds a model by name and raises `ParframeError` for an unknown one. The measured
    kernel times of the device ``unseen`` are ignored, to evaluate predictions of unknown devices.
    """

    model: Callable[[str], ServableModel]
    hardware: Catalog = attrs.field(factory=load_catalog)
    engines: tuple[Engine, ...] = attrs.field(factory=shipped_engines)
    unseen: str | None = None


@attrs.frozen
class ResolvedQuery:
    """A query with the deployment that it names, which is one of several equal instances.

    ``devices`` are the GPUs of all instances, ``device`` is the key of the GPU.
    """

    deployment: Deployment
    devices: int
    instances: int
    model: str
    device: str
    notes: tuple[str, ...] = ()


def resolve_query(query: Query, registry: Registry) -> ResolvedQuery:
    """Find what a query names, with notes on what is assumed for empty cells.

    Raises
    ------
    ParframeError
        If a name is unknown, or the numbers of devices contradict each other.
    """
    notes: list[str] = []
    model = registry.model(query.model)
    machine = registry.hardware.machine(query.gpu)
    layout, devices, instances = _resolve_layout(query, notes)
    engine = find_engine(query.framework, registry.engines)
    if not engine.measured:
        given = f"{query.framework!r} was not measured" if query.framework else "is not given"
        notes.append(f"engine {given}, median engine assumed")
    dtypes = Dtypes(query.weights or model.weights, query.cache or "bf16")
    if query.weights is None:
        notes.append(f"{dtypes.weights} weights assumed")
    implementation = implementation_of(query.framework)
    clock = _clock(machine, devices // instances, dtypes, implementation, registry.unseen)
    work = model.work(layout)
    if not engine.sliding_window:
        work = without_windows(work)
    if work.devices != devices // instances:
        raise ParframeError(
            "mesh",
            f"{query.model} on {devices} GPUs",
            f"the layout is for {work.devices} devices, an instance has {devices // instances}",
            "set tp, pp, ep and dp so that their product is n_gpus",
        )
    memory = DeviceMemory.with_dtypes(machine.device.usable, dtypes.weights, dtypes.cache)
    deployment = Deployment(work, clock, engine, memory)
    _check_weights_fit(query, deployment, machine)
    return ResolvedQuery(
        deployment, devices, instances, model.name, machine.device.key, tuple(notes)
    )


@lru_cache(maxsize=4096)
def _clock(
    machine: Machine, devices: int, dtypes: Dtypes, implementation: str, unseen: str | None
) -> ClusterTimer:
    """Return the one clock of a cluster and dtypes: times are cached by it."""
    return ClusterTimer(Cluster(machine, devices), dtypes, implementation, unseen)


def _resolve_layout(query: Query, notes: list[str]) -> tuple[Layout, int, int]:
    """Return the layout of an instance, the number of all GPUs and the number of instances."""
    pipeline, data = query.pipeline or 1, query.data or 1
    tensor = query.tensor
    if tensor is None:
        tensor = max(1, (query.devices or pipeline * data) // (pipeline * data))
        if tensor > 1:
            notes.append(f"tp={tensor} assumed")
    expert = query.expert or 1
    product = tensor * pipeline * data
    devices = query.devices or product
    if devices % product:
        raise ParframeError(
            "mesh",
            f"{devices} GPUs",
            f"n_gpus is not a multiple of tp x pp x dp = {product}",
            "set n_gpus to a multiple of tp x pp x dp",
        )
    instances = devices // product
    if instances == expert > 1:
        # Expert parallelism has a mesh axis of its own: attention is replicated over it, and each
        # replica serves its part of the requests.
        return Layout(tensor, pipeline, expert, data * expert), devices, 1
    if expert > tensor * data:
        raise ParframeError(
            "mesh",
            f"ep={expert}",
            f"a pipeline stage has only tp x dp = {tensor * data} GPUs",
            "set ep to tp x dp at most, or n_gpus to tp x pp x dp x ep",
        )
    return Layout(tensor, pipeline, expert, data), devices, instances


def _check_weights_fit(query: Query, deployment: Deployment, machine: Machine) -> None:
    """Raise an error if the memory of a device is smaller than its weights."""
    memory = deployment.memory
    weights = max(memory.weight_bytes(stage.footprint) for stage in deployment.work.stages)
    if weights >= memory.total:
        raise ParframeError(
            "memory",
            f"{query.model} on {machine.device.name}",
            f"weights need {weights / GIB:.1f} GiB, and a device has {memory.total / GIB:.1f} GiB",
            "use more devices or a smaller weight dtype",
        )

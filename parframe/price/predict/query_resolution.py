"""A question made concrete: which devices, which plan's work, which engine, and what is assumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs

from parframe.errors import ParframeError
from parframe.hardware import Catalog, Cluster
from parframe.hardware.machine import Machine
from parframe.price.cost.cluster_timer import MeasuredClock
from parframe.price.cost.communication_times import implementation_of
from parframe.price.cost.dtypes import Dtypes
from parframe.price.predict.queries import Question
from parframe.price.serving.device_memory import Room
from parframe.price.serving.engines import Engine, engine, engines
from parframe.price.serving.hardware_lookup import known as known_hardware
from parframe.price.serving.steady_state import Deployment
from parframe.price.work.work import Attention, Experts, Stage, Work


@attrs.frozen
class Layout:
    """The parallelism of one instance of a model.

    Parameters
    ----------
    tensor, pipeline, data
        Their product is the instance's devices, unless the experts have devices of their own.
    expert
        Over how many of them experts are spread.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1


@attrs.frozen
class Model:
    """What is known of a model by its name.

    Parameters
    ----------
    name
        Its usual name.
    weights
        The dtype that its weights are published in, or that the name says.
    work
        Gives what a step asks of the devices of a layout.
    """

    name: str
    weights: str
    work: Callable[[Layout], Work]


@attrs.frozen
class Basis:
    """Where answers come from.

    Parameters
    ----------
    model
        Looks a model up; raises `ParframeError` where it is not known.
    hardware
        Looks devices up.
    engines
        The engines, of which the last resort is named ``pooled``.
    unseen
        A device whose own kernel times are left out, to see how well an unknown one is predicted.
    """

    model: Callable[[str], Model]
    hardware: Catalog = attrs.field(factory=known_hardware)
    engines: tuple[Engine, ...] = attrs.field(factory=engines)
    unseen: str | None = None


@attrs.frozen
class Concrete:
    """A question made concrete.

    Parameters
    ----------
    deployment
        One instance of the model.
    devices
        GPUs of all instances.
    instances
        How many there are.
    model
        The usual name of the model.
    device
        The key of the GPU.
    why
        What was assumed.
    """

    deployment: Deployment
    devices: int
    instances: int
    model: str
    device: str
    why: tuple[str, ...] = ()


def concrete(asked: Question, basis: Basis) -> Concrete:
    """Find what a question names, and say what is assumed where it names nothing.

    Raises
    ------
    ParframeError
        If a name is unknown, or the numbers of devices do not agree.
    """
    why: list[str] = []
    model = basis.model(asked.model)
    machine = basis.hardware.machine(asked.gpu)
    layout, devices, instances = _layout(asked, why)
    chosen = engine(asked.framework, basis.engines)
    if not chosen.known:
        shown = asked.framework or "none is named"
        why.append(f"no rows of this engine ({shown}): the middle of those that have some")
    dtypes = _dtypes(asked, model, why)
    clock = _clock(
        machine, devices // instances, dtypes, implementation_of(asked.framework), basis.unseen
    )
    work = model.work(layout)
    if not chosen.windows:
        work = without_windows(work)
    if work.devices != devices // instances:
        raise ParframeError(
            "mesh",
            f"{asked.model} on {devices} GPUs",
            f"its plan is for {work.devices} of each instance's {devices // instances}",
            "give tp, pp, ep and dp whose product is n_gpus",
        )
    room = Room.of(machine.device.usable, dtypes.weights, dtypes.cache)
    deployment = Deployment(work, clock, chosen, room)
    _check_fits(asked, deployment, machine)
    return Concrete(deployment, devices, instances, model.name, machine.device.key, tuple(why))


@lru_cache(maxsize=4096)
def without_windows(work: Work) -> Work:
    """Return the work of an engine that keeps and reads all positions."""
    return attrs.evolve(work, stages=tuple(_unbounded(stage) for stage in work.stages))


def _unbounded(stage: Stage) -> Stage:
    kernels = tuple(
        attrs.evolve(kernel, window=None) if isinstance(kernel, Attention) else kernel
        for kernel in stage.kernels
    )
    kept = tuple((elements, None) for elements, _ in stage.footprint.cache)
    return attrs.evolve(stage, kernels=kernels, footprint=attrs.evolve(stage.footprint, cache=kept))


@lru_cache(maxsize=4096)
def with_all_logits(work: Work) -> Work:
    """Return the work of an engine whose head gives logits of every position of a prompt."""
    return attrs.evolve(work, stages=tuple(_every_position(stage) for stage in work.stages))


def _every_position(stage: Stage) -> Stage:
    kernels = tuple(
        one if isinstance(one, Attention | Experts) else attrs.evolve(one, per="token")
        for one in stage.kernels
    )
    exchanges = tuple(attrs.evolve(one, per="token") for one in stage.communication)
    return attrs.evolve(stage, kernels=kernels, communication=exchanges)


@lru_cache(maxsize=4096)
def _clock(
    machine: Machine, devices: int, dtypes: Dtypes, implementation: str, unseen: str | None
) -> MeasuredClock:
    """One clock for each place and dtypes: times are kept by it."""
    return MeasuredClock(Cluster(machine, devices), dtypes, implementation, unseen)


def _layout(asked: Question, why: list[str]) -> tuple[Layout, int, int]:
    """The parallelism of an instance, all GPUs, and how many instances they hold."""
    pipeline, data = asked.pipeline or 1, asked.data or 1
    tensor = asked.tensor
    if tensor is None:
        tensor = max(1, (asked.devices or pipeline * data) // (pipeline * data))
        if tensor > 1:
            why.append(f"tp is not given: taken for {tensor}")
    expert = asked.expert or 1
    inner = tensor * pipeline * data
    devices = asked.devices or inner
    if devices % inner:
        raise ParframeError(
            "mesh",
            f"{devices} GPUs",
            f"tp x pp x dp is {inner}, which does not divide them",
            "give numbers that agree",
        )
    instances = devices // inner
    if instances == expert > 1:
        # The experts' group is an axis of its own: attention is replicated over it, each
        # replica with its part of the requests.
        return Layout(tensor, pipeline, expert, data * expert), devices, 1
    if expert > tensor * data:
        raise ParframeError(
            "mesh",
            f"ep={expert}",
            f"an instance has {tensor * data} GPUs for each part of its layers",
            "give an ep of tp x dp at most, or n_gpus that count it",
        )
    return Layout(tensor, pipeline, expert, data), devices, instances


def _dtypes(asked: Question, model: Model, why: list[str]) -> Dtypes:
    weights = asked.weights or model.weights
    cache = asked.cache or "bf16"
    if asked.weights is None:
        why.append(f"weights taken for {weights}")
    return Dtypes(weights, cache)


def _check_fits(asked: Question, deployment: Deployment, machine: Machine) -> None:
    """Refuse weights that memory does not hold: there is nothing to predict."""
    room = deployment.room
    needed = max(room.weights(stage.footprint) for stage in deployment.work.stages)
    if needed >= room.memory:
        raise ParframeError(
            "memory",
            f"{asked.model} on {machine.device.name}",
            f"weights need {needed / 1e9:.1f} of {room.memory / 1e9:.1f} GB on a device",
            "use more devices, or narrower weights",
        )

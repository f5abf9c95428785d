"""What every rank of a run does: meet the others, load, warm up, and serve batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points, version
from math import ceil
from typing import Any, Protocol

import attrs
import torch

from parframe.errors import ParframeError
from parframe.generation.engine import Engine, Shape, agreeing
from parframe.generation.replicas import Replica, replicas_of
from parframe.generation.requests import Request, Result, Sampling, Token
from parframe.generation.scheduler import Batch
from parframe.generation.settings import Settings
from parframe.plan import Plan, plan_digest
from parframe.runtime.process_groups import make_groups, select_backend
from parframe.runtime.rank_module import RankModule, build_module
from parframe.runtime.rank_program import find_groups
from parframe.runtime.rendezvous import join_rendezvous
from parframe.simulation.dtypes import parse_dtype
from parframe.weights import RandomWeights, read_weights

_MEETING = 0.9
"""Of the time in which something must happen, how much ranks wait: they know who did not come."""


class Station(Protocol):
    """Where a rank runs: what it needs of its process."""

    @property
    def rank(self) -> int:
        """Which rank it is."""

    @property
    def world(self) -> int:
        """Of how many."""

    @property
    def store(self) -> Any:
        """Where the ranks meet; None if the host has process groups already."""

    @property
    def timeout(self) -> float:
        """How many seconds a communication may take."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def step(self, number: int) -> None:
        """A step of the phase begins."""

    def operator(self, name: str) -> None:
        """An operator begins."""


@attrs.frozen
class Ready:
    """A rank that is ready to serve.

    Parameters
    ----------
    engine
        It serves batches.
    replica
        The ranks it works with.
    leads
        Whether it is the one of its replica that tells what was drawn.
    """

    engine: Engine
    replica: Replica
    leads: bool


def ready(
    station: Station,
    plan: Plan,
    settings: Settings,
    shape: Shape,
    run: str,
    progress: Callable[[int, int], None] | None = None,
    local_rank: int | None = None,
) -> Ready:
    """Make a rank ready to serve.

    Parameters
    ----------
    station
        Where it runs.
    plan
        The plan.
    settings
        How it is run.
    shape
        How much a replica does at once.
    run
        What tells this run from others; the same on every rank.
    progress
        Told the bytes of weights that were read, and those that there are.
    local_rank
        Which of its host's ranks it is; None if all ranks are on this host.

    Raises
    ------
    ParframeError
        If ranks are not of one mind, the weights are not those of the plan, or the device is not
        there.
    """
    rank = station.rank
    local = rank if local_rank is None else local_rank
    device = device_of(settings.device, local, settings.shared)
    replicas = replicas_of(plan)
    replica = next(one for one in replicas if rank in one.ranks)
    station.operator("meet the other ranks")
    if station.store is not None:
        join_rendezvous(
            station.store, rank=rank, world=station.world, run=run, facts=facts_of_run(plan),
            timeout=_MEETING * settings.timeout,
        )  # fmt: skip
    needed = dict.fromkeys((*find_groups(plan), *agreeing(replicas)))
    groups = make_groups(
        needed, rank=rank, world=station.world, device=device.type, timeout=station.timeout,
        store=station.store, shared=settings.shared,
    )  # fmt: skip
    station.phase("load")
    station.operator("weights")
    module = loaded(plan, rank, settings, device, groups.by_ranks, progress)
    engine = Engine(
        module,
        replica,
        groups.by_ranks,
        shape,
        station,
        parse_dtype(settings.dtype),
        settings.compiled,
        settings.chunk,
    )
    if settings.compiled:
        station.phase("warm-up")
        warm_up(engine)
    return Ready(engine, replica, replica.tail[0] == rank)


def loaded(
    plan: Plan,
    rank: int,
    settings: Settings,
    device: torch.device,
    groups: Mapping[Any, Any],
    progress: Callable[[int, int], None] | None = None,
) -> RankModule:
    """The module of a rank with its weights."""
    dtype = parse_dtype(settings.dtype)
    weights: Any = RandomWeights(settings.seed) if settings.weights is None else settings.weights
    parameters = read_weights(
        plan, rank, weights, device, dtype, progress, settings.pickled, settings.extra,
        declared=True,
    )  # fmt: skip
    return build_module(plan, rank, parameters, device, groups, dtype, cache=settings.cached)


def warm_up(engine: Engine) -> None:
    """Compile: a prompt of one token is completed by three, in every row."""
    shape = engine.shape
    rows = [
        Request(number, (0,), Sampling(max_new_tokens=min(3, shape.slots)))
        for number in range(shape.rows * shape.lanes)
    ]
    engine.run(Batch(tuple(rows)), lambda tokens: None)


def facts_of_run(plan: Plan) -> dict[str, str]:
    """What must be the same on all ranks: versions, plugins, the plan."""
    plugins = {
        point.dist.name: point.dist.version
        for point in entry_points(group="parframe")
        if point.dist is not None
    }
    return {
        "parframe": version("parframe"),
        "torch": torch.__version__,
        **{f"plugin {name}": number for name, number in sorted(plugins.items())},
        "plan": plan_digest(plan),
    }


def check_device(kind: str, where: str, ranks: int = 1, shared: bool = False) -> None:
    """Refuse a kind of device that is not here, or not as often as is needed.

    Parameters
    ----------
    kind
        ``cpu`` or ``cuda``.
    where
        Who asks, in words.
    ranks
        How many ranks this host has.
    shared
        Whether they may share a GPU.

    Raises
    ------
    ParframeError
        Of kind ``run``, if there are none or too few, or ranks on them cannot speak.
    """
    if kind == "cuda" and not (torch.cuda.is_available() and torch.cuda.device_count()):
        raise ParframeError(
            "run",
            f"{where}, device cuda",
            "there is no GPU here that PyTorch can use",
            "run on cpu, or install PyTorch with CUDA and its driver",
        )
    if kind == "cuda" and ranks > torch.cuda.device_count() and not shared:
        raise ParframeError(
            "run",
            f"{where}, device cuda",
            f"{ranks} ranks need a GPU each, and there are {torch.cuda.device_count()}",
            "use fewer devices or more hosts; to try a plan out, let ranks share GPUs "
            "(--share-gpus, shared=True), or run on cpu",
        )
    if ranks > 1:
        select_backend(kind, shared)


def device_of(kind: str, rank: int, shared: bool = False) -> torch.device:
    """The torch device of a rank, numbered on its host.

    Raises
    ------
    ParframeError
        Of kind ``run``, if there is none for it.
    """
    check_device(kind, f"rank {rank}", rank + 1, shared)
    if kind != "cuda":
        return torch.device(kind)
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def shape_of(plan: Plan, requests: Sequence[Request], settings: Settings) -> Shape:
    """How much a replica of a plan does at once for these requests."""
    replicas = replicas_of(plan)
    stages = 1 + max(program.stage for program in plan.programs.values())
    share = -(-len(requests) // len(replicas))
    rows = max(1, min(settings.rows, share))
    lanes = min(settings.micro_batches or stages, rows)
    unit = replicas[0].row_unit
    each = ceil(rows / (lanes * unit)) * unit
    longest = max(request.positions for request in requests)
    return Shape(each, lanes, settings.context or longest)


def results_of(
    serving: Ready, batch: Batch, told: Callable[[Sequence[Token]], None]
) -> Iterator[Result]:
    """Complete a batch; what came of it, where the rank leads."""
    silent: Callable[[Sequence[Token]], None] = lambda tokens: None  # noqa: E731
    results = serving.engine.run(batch, told if serving.leads else silent)
    yield from results if serving.leads else ()

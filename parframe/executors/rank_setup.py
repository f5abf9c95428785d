"""Setup of a rank of a run: rendezvous, process groups, weights, engine and warm-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points, version
from typing import Any

import attrs
import torch

from parframe.executors.devices import select_device
from parframe.executors.rank_context import RankContext
from parframe.generation.batch_shape import BatchShape
from parframe.generation.engine import Engine
from parframe.generation.next_tokens import find_sampling_groups
from parframe.generation.outcomes import Result, Token
from parframe.generation.replicas import Replica, find_replicas
from parframe.generation.requests import Request, Sampling
from parframe.generation.scheduler import Batch
from parframe.generation.settings import Settings
from parframe.plan import Plan, plan_digest
from parframe.runtime.process_groups import make_groups
from parframe.runtime.rank_module import RankModule, build_module
from parframe.runtime.rank_program import find_groups
from parframe.runtime.rendezvous import join_rendezvous
from parframe.simulation.dtypes import parse_dtype
from parframe.weights import RandomWeights, read_weights

_RENDEZVOUS_SHARE = 0.9
"""Share of the timeout that ranks wait in the rendezvous, so that they can name missing ranks."""


@attrs.frozen
class ReadyRank:
    """Rank that is ready to complete batches.

    Parameters
    ----------
    engine
        Engine of the rank.
    replica
        Replica of the rank.
    leads
        Whether the rank is the leader of its replica, which reports tokens and results.
    """

    engine: Engine
    replica: Replica
    leads: bool

    def complete(
        self, batch: Batch, on_tokens: Callable[[Sequence[Token]], None]
    ) -> Iterator[Result]:
        """Complete a batch, and yield the results on the leader of the replica."""
        ignore: Callable[[Sequence[Token]], None] = lambda tokens: None  # noqa: E731
        results = self.engine.run(batch, on_tokens if self.leads else ignore)
        yield from results if self.leads else ()


def set_up_rank(
    context: RankContext,
    plan: Plan,
    settings: Settings,
    shape: BatchShape,
    run: str,
    progress: Callable[[int, int], None] | None = None,
    local_rank: int | None = None,
) -> ReadyRank:
    """Set up a rank so that it can complete batches.

    Parameters
    ----------
    context
        Context of the rank.
    plan
        The plan.
    settings
        Settings of the run.
    shape
        Shape of the batches.
    run
        Name of the run, equal on every rank.
    progress
        Called with the bytes of weights read so far and in total.
    local_rank
        Rank on its node; None if all ranks are on one node.

    Raises
    ------
    ParframeError
        If ranks have different plans or versions, if the weights do not fit the plan, or if the
        device is missing.
    """
    rank = context.rank
    local_rank = rank if local_rank is None else local_rank
    device = select_device(settings.device, local_rank, settings.share_gpus)
    replicas = find_replicas(plan)
    replica = next(replica for replica in replicas if rank in replica.ranks)
    context.operator("wait for the other ranks")
    if context.store is not None:
        join_rendezvous(
            context.store, rank=rank, world=context.world, run=run, facts=describe_run(plan),
            timeout=_RENDEZVOUS_SHARE * settings.timeout,
        )  # fmt: skip
    needed = dict.fromkeys((*find_groups(plan), *find_sampling_groups(replicas)))
    groups = make_groups(
        needed, rank=rank, world=context.world, device=device.type, timeout=context.timeout,
        store=context.store, shared=settings.share_gpus,
    )  # fmt: skip
    context.phase("load")
    context.operator("weights")
    module = load_module(plan, rank, settings, device, groups, progress)
    engine = Engine(
        module,
        replica,
        groups,
        shape,
        context,
        parse_dtype(settings.dtype),
        settings.compiled,
        settings.prefill_chunk,
    )
    if settings.compiled:
        context.phase("warm-up")
        warm_up(engine)
    return ReadyRank(engine, replica, replica.logits_ranks[0] == rank)


def load_module(
    plan: Plan,
    rank: int,
    settings: Settings,
    device: torch.device,
    groups: Mapping[Any, Any],
    progress: Callable[[int, int], None] | None = None,
) -> RankModule:
    """Build the module of a rank with its weights."""
    dtype = parse_dtype(settings.dtype)
    weights: Any = RandomWeights(settings.seed) if settings.weights is None else settings.weights
    parameters = read_weights(
        plan, rank, weights, device, dtype, progress, settings.pickled, settings.extra,
        graph_dtypes=True,
    )  # fmt: skip
    return build_module(plan, rank, parameters, device, groups, dtype, cache=settings.cached)


def warm_up(engine: Engine) -> None:
    """Compile the decode step by completing prompts of one token in every row."""
    new_tokens = min(3, engine.shape.slots)
    requests = [
        Request(number, (0,), Sampling(max_new_tokens=new_tokens))
        for number in range(engine.shape.batch_size)
    ]
    engine.run(Batch(tuple(requests)), lambda tokens: None)


def describe_run(plan: Plan) -> dict[str, str]:
    """Return what must be equal on all ranks: versions, plugins and the digest of the plan."""
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

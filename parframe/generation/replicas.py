"""Replicas of a plan, and the rows and tokens of a step on each of their ranks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import lcm

import attrs
import sympy
import torch

from parframe.errors import ParframeError
from parframe.graph import Input, OperatorGraph
from parframe.plan import Part, Plan, communicates, group_axes
from parframe.simulation.device_coroutine import evaluate_sizes
from parframe.simulation.regions import Regions, evaluate_regions, take

_SEQUENCE, _BATCH = "sequence", "batch"


@attrs.frozen
class RowRange:
    """Rows of a replica's batch on one rank: ``start`` to ``stop``."""

    start: int
    stop: int


@attrs.frozen
class Replica:
    """Ranks that complete the same requests, in lockstep except for pipeline stages.

    Parameters
    ----------
    plan
        The plan.
    number
        Number of the replica within the plan.
    ranks
        Ranks of the replica.
    """

    plan: Plan
    number: int
    ranks: tuple[int, ...]

    @cached_property
    def logits_ranks(self) -> tuple[int, ...]:
        """Ranks that have logits."""
        return tuple(rank for rank in self.ranks if self.plan.program(rank).outputs)

    @cached_property
    def token_multiple(self) -> int:
        """Number of which the tokens of a row in a step are a multiple, for equal parts."""
        ratios = (
            mesh.ratio(self.plan.placing.axes(_SEQUENCE)) for mesh in self.plan.mesh.submeshes
        )
        halves = 2 if _SEQUENCE in self.plan.placing.zigzag else 1
        return halves * lcm(*(sum(ratio) for ratio in ratios))

    @cached_property
    def row_multiple(self) -> int:
        """Number of which the rows of a step are a multiple, so that they divide over its ranks."""
        return self._batch_multiple // self._batch_shares

    def global_rows(self, rows: int) -> int:
        """Return the rows of all replicas, if each has as many as this one."""
        return rows * self._batch_shares

    def sizes(self, rank: int, rows: int, tokens: int) -> dict[str, int]:
        """Return the sizes of a rank's symbols for a step of so many rows and tokens."""
        names = symbol_names(self.plan.graph)
        given = {names[_BATCH]: self.global_rows(rows), names[_SEQUENCE]: tokens}
        return evaluate_sizes(self.plan.devices[rank], given)

    def row_ranges(self, rows: int) -> Mapping[int, RowRange]:
        """Return the rows of each rank that takes inputs or returns outputs."""
        spans: dict[int, tuple[int, int]] = {}
        for rank in self.ranks:
            program = self.plan.program(rank)
            part = next(iter((*program.inputs, *program.outputs)), None)
            if part is not None:
                sizes = self.sizes(rank, rows, self.token_multiple)
                own = find_indices(part, sizes, 0, self.global_rows(rows))
                spans[rank] = own[0], own[-1] + 1
        starts: dict[tuple[int, int], int] = {}
        at = 0
        for span in sorted(set(spans.values())):
            starts[span] = at
            at += span[1] - span[0]
        return {r: RowRange(starts[s], starts[s] + s[1] - s[0]) for r, s in spans.items()}

    @cached_property
    def _batch_multiple(self) -> int:
        axes = self.plan.placing.axes(_BATCH)
        return lcm(*(sum(mesh.ratio(axes)) for mesh in self.plan.mesh.submeshes))

    @cached_property
    def _batch_shares(self) -> int:
        """Number of parts into which replicas split the batch."""
        axes = find_replica_axes(self.plan)
        return lcm(*(sum(mesh.ratio(axes)) for mesh in self.plan.mesh.submeshes))


def find_replicas(plan: Plan) -> tuple[Replica, ...]:
    """Find the replicas of a plan: ranks that differ only along axes without communication."""
    axes = find_replica_axes(plan)
    found: dict[tuple[int, ...], list[int]] = {}
    for rank in range(plan.mesh.size):
        place = plan.mesh.coordinates(rank)
        found.setdefault(tuple(place[axis] for axis in axes), []).append(rank)
    return tuple(Replica(plan, n, tuple(ranks)) for n, ranks in enumerate(found.values()))


def find_replica_axes(plan: Plan) -> tuple[str, ...]:
    """Find the mesh axes that split the batch and have no communication."""
    busy = {
        axis
        for program in plan.programs.values()
        for operator in program.operators
        if communicates(operator)
        for axis in group_axes(operator)
    }
    parallel = tuple(axis for axis in plan.placing.axes(_BATCH) if axis not in busy)
    shares = {share for mesh in plan.mesh.submeshes for share in mesh.ratio(parallel)}
    return parallel if len(shares) == 1 else ()


def find_tokens_input(graph: OperatorGraph) -> Input:
    """Find the input of a language model that takes its tokens.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the model takes other inputs.
    """
    given = [own for own in graph.inputs.values() if not own.counted]
    if len(given) != 1 or given[0].axes != (_BATCH, _SEQUENCE):
        raise ParframeError(
            "run",
            graph.source or "the model",
            f"generates no text: its inputs are {', '.join(graph.inputs)}",
            "use a language model",
        )
    return given[0]


def symbol_names(graph: OperatorGraph) -> Mapping[str, str]:
    """Return the names of the symbols of batch and sequence."""
    given = find_tokens_input(graph)
    return {
        axis: size.name if isinstance(size, sympy.Symbol) else axis
        for axis, size in zip(given.axes, given.shape, strict=True)
    }


def find_logits(plan: Plan) -> str:
    """Find the output of a language model that has its logits ``[batch, sequence, vocabulary]``.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the model has no such output.
    """
    given = find_tokens_input(plan.graph)
    for name in plan.graph.output_names:
        shape = plan.graph.tensors[name].shape
        if len(shape) == 3 and shape[:2] == given.shape and isinstance(shape[2], int):
            return name
    raise ParframeError(
        "run",
        plan.graph.source or "the model",
        "generates no text: no output has logits for every token",
        "use a language model",
    )


def find_indices(part: Part, sizes: Mapping[str, int], dim: int, length: int) -> list[int]:
    """Return the indices of a part along a dim of the whole tensor, in order."""
    region: Regions = (evaluate_regions(part.region, sizes)[dim],)
    found: list[int] = take(torch.arange(length), region).tolist()
    return found

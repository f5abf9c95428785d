"""Which ranks work on the same requests, and which rows and tokens of a step each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import lcm

import attrs
import sympy
import torch

from parframe.errors import ParframeError
from parframe.graph import Input, OperatorGraph
from parframe.plan import COMMUNICATION, Part, Plan, group_axes
from parframe.simulation.device_coroutine import evaluate_sizes
from parframe.simulation.regions import Regions, evaluate_regions, take

_SEQUENCE, _BATCH = "sequence", "batch"


@attrs.frozen
class Block:
    """The rows of a replica that a rank has: ``start`` to ``stop``."""

    start: int
    stop: int


@attrs.frozen
class Replica:
    """Ranks that work on the same requests, in lockstep but for the stages of a pipeline.

    Parameters
    ----------
    plan
        The plan.
    number
        Which replica of the plan it is.
    ranks
        Its ranks.
    """

    plan: Plan
    number: int
    ranks: tuple[int, ...]

    @cached_property
    def tail(self) -> tuple[int, ...]:
        """The ranks that have logits."""
        return tuple(rank for rank in self.ranks if self.plan.program(rank).outputs)

    @cached_property
    def unit(self) -> int:
        """The tokens of a row in a step must be a multiple of this, so that all parts are equal."""
        ratios = (
            mesh.ratio(self.plan.placing.axes(_SEQUENCE)) for mesh in self.plan.mesh.submeshes
        )
        halves = 2 if _SEQUENCE in self.plan.placing.zigzag else 1
        return halves * lcm(*(sum(ratio) for ratio in ratios))

    @cached_property
    def row_unit(self) -> int:
        """The rows of a step must be a multiple of this, so that they divide over its ranks."""
        return self._batch_unit // self._apart

    def batch(self, rows: int) -> int:
        """The batch of all replicas, if each had as many rows as this one."""
        return rows * self._apart

    def sizes(self, rank: int, rows: int, tokens: int) -> dict[str, int]:
        """The values of all symbols of a rank's program, for a step of so many rows and tokens."""
        names = symbols(self.plan.graph)
        given = {names[_BATCH]: self.batch(rows), names[_SEQUENCE]: tokens}
        return evaluate_sizes(self.plan.devices[rank], given)

    def blocks(self, rows: int) -> Mapping[int, Block]:
        """For every rank that is given or gives something, which rows it has of them."""
        spans: dict[int, tuple[int, int]] = {}
        for rank in self.ranks:
            program = self.plan.program(rank)
            part = next(iter((*program.inputs, *program.outputs)), None)
            if part is not None:
                sizes = self.sizes(rank, rows, self.unit)
                own = places(part, sizes, 0, self.batch(rows))
                spans[rank] = own[0], own[-1] + 1
        starts: dict[tuple[int, int], int] = {}
        at = 0
        for span in sorted(set(spans.values())):
            starts[span] = at
            at += span[1] - span[0]
        return {r: Block(starts[s], starts[s] + s[1] - s[0]) for r, s in spans.items()}

    @cached_property
    def _batch_unit(self) -> int:
        axes = self.plan.placing.axes(_BATCH)
        return lcm(*(sum(mesh.ratio(axes)) for mesh in self.plan.mesh.submeshes))

    @cached_property
    def _apart(self) -> int:
        """Into how many parts the batch is split over replicas."""
        axes = replica_axes(self.plan)
        return lcm(*(sum(mesh.ratio(axes)) for mesh in self.plan.mesh.submeshes))


def replicas_of(plan: Plan) -> tuple[Replica, ...]:
    """The replicas of a plan: ranks that differ only along axes that nothing is sent along."""
    axes = replica_axes(plan)
    found: dict[tuple[int, ...], list[int]] = {}
    for rank in range(plan.mesh.size):
        place = plan.mesh.coordinates(rank)
        found.setdefault(tuple(place[axis] for axis in axes), []).append(rank)
    return tuple(Replica(plan, n, tuple(ranks)) for n, ranks in enumerate(found.values()))


def replica_axes(plan: Plan) -> tuple[str, ...]:
    """The mesh axes that split the batch, and along which nothing is sent."""
    busy = {
        axis
        for program in plan.programs.values()
        for operator in program.operators
        if operator.target in COMMUNICATION
        for axis in group_axes(operator)
    }
    found = tuple(axis for axis in plan.placing.axes(_BATCH) if axis not in busy)
    shares = {share for mesh in plan.mesh.submeshes for share in mesh.ratio(found)}
    return found if len(shares) == 1 else ()


def tokens_input(graph: OperatorGraph) -> Input:
    """The input in which a language model takes its tokens.

    Raises
    ------
    ParframeError
        Of kind ``run``, if it takes something else.
    """
    given = [own for own in graph.inputs.values() if not own.counted]
    if len(given) != 1 or given[0].axes != (_BATCH, _SEQUENCE):
        raise ParframeError(
            "run",
            graph.source or "the model",
            f"generates no text: its inputs are {', '.join(graph.inputs)}",
            "give a language model",
        )
    return given[0]


def symbols(graph: OperatorGraph) -> Mapping[str, str]:
    """The names of the symbols that stand for batch and sequence."""
    given = tokens_input(graph)
    return {
        axis: size.name if isinstance(size, sympy.Symbol) else axis
        for axis, size in zip(given.axes, given.shape, strict=True)
    }


def logits_name(plan: Plan) -> str:
    """The output of a language model that has its logits: ``[batch, sequence, vocabulary]``.

    Raises
    ------
    ParframeError
        Of kind ``run``, if it has no such output.
    """
    given = tokens_input(plan.graph)
    for name in plan.graph.output_names:
        shape = plan.graph.tensors[name].shape
        if len(shape) == 3 and shape[:2] == given.shape and isinstance(shape[2], int):
            return name
    raise ParframeError(
        "run",
        plan.graph.source or "the model",
        "generates no text: no output has numbers for every token",
        "give a language model",
    )


def places(part: Part, sizes: Mapping[str, int], axis: int, length: int) -> list[int]:
    """Where along an axis of the whole tensor the entries of a part lie, in order."""
    region: Regions = (evaluate_regions(part.region, sizes)[axis],)
    found: list[int] = take(torch.arange(length), region).tolist()
    return found

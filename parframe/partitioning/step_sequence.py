"""Steps of a device over all calls of blocks, before they are divided into stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

import attrs

from parframe.dims import Dimensions
from parframe.graph import Operator, OperatorGraph, Tensor, rename_arg
from parframe.partitioning.cuts import Cut, Shape
from parframe.partitioning.graph_placement import PlacedCall, PlacedGraph, outer_block
from parframe.partitioning.local_block import LocalBlock
from parframe.partitioning.localize import localize_block
from parframe.plan import Layout

LOCAL_SUFFIX = re.compile(r"[@~].*$", re.DOTALL)
"""Suffix of the local names of a value."""


@attrs.frozen
class Step:
    """Operators that belong together, and the number of the call that they are of."""

    call: int
    operators: tuple[Operator, ...]

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Values that it reads and does not make itself."""
        own = set(self.writes)
        return tuple(v for operator in self.operators for v in operator.inputs if v not in own)

    @cached_property
    def writes(self) -> tuple[str, ...]:
        """Values that it makes."""
        return tuple(v for operator in self.operators for v in operator.outputs)


@attrs.frozen(eq=False)
class ModelSteps:
    """Steps of the whole model for devices of one shape, and the values of the steps."""

    steps: tuple[Step, ...]
    tensors: Mapping[str, Tensor]


@attrs.frozen(eq=False)
class StepSequence(ModelSteps):
    """Steps of the whole model with its caches (name and value), and the layouts of its values."""

    states: tuple[tuple[str, str], ...]
    layouts: Mapping[str, Layout]


@attrs.frozen(eq=False)
class LocalGraph:
    """Every block, and the conversions between calls, for one shape of device."""

    placed: PlacedGraph
    blocks: Mapping[str, LocalBlock]
    between: LocalBlock

    def names(self, call: PlacedCall) -> dict[str, str]:
        """Return the names of the values of a call's block in the sequence."""
        block = self.placed.blocks[call.call.block].block
        own, given = call.call.names(block), {*block.inputs, *block.parameters}
        result: dict[str, str] = {}
        for name in self.blocks[block.name].tensors:
            base = LOCAL_SUFFIX.sub("", name)
            suffix = name[len(base) :]
            if name in call.inputs:
                result[name] = call.inputs[name]
            elif base in given and suffix:
                result[name] = f"{call.call.name}/{name}"
            else:
                result[name] = own[base] + suffix
        return result


def sequence_steps(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placed: PlacedGraph,
    cuts: tuple[Cut, ...],
    shape: Shape,
) -> StepSequence:
    """Write out every call of every block for one shape of device."""
    blocks = {
        name: localize_block(
            block.block, dimensions.tensor_dims[name], block.actions, cuts, shape, block.given
        )
        for name, block in placed.blocks.items()
    }
    between = localize_between_calls(graph, dimensions, placed, cuts, shape)
    local = LocalGraph(placed, blocks, between)
    tensors: dict[str, Tensor] = dict(between.tensors)
    layouts: dict[str, Layout] = dict(between.layouts)
    states: list[tuple[str, str]] = []
    for call in placed.calls:
        block, label = placed.blocks[call.call.block], call.call.name
        names, wholes = local.names(call), call.call.names(block.block)
        for own, tensor in blocks[block.block.name].tensors.items():
            tensors[names[own]] = attrs.evolve(tensor, name=names[own])
        for own, layout in blocks[block.block.name].layouts.items():
            layouts[names[own]] = Layout(wholes[layout.whole], layout.region, layout.partial)
        states.extend(
            (f"{label}/{state.name}" if label else state.name, names[cached])
            for state, cached in zip(block.block.states, block.states, strict=True)
        )
    return StepSequence(write_steps(local), tensors, tuple(states), layouts)


def localize_between_calls(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placed: PlacedGraph,
    cuts: tuple[Cut, ...],
    shape: Shape,
) -> LocalBlock:
    """Write the conversions between calls for one shape of device."""
    between = (a for call in placed.calls for a in (*call.glue, *call.leaving))
    actions = (*between, *placed.glue)
    return localize_block(outer_block(graph), dimensions.outer, actions, cuts, shape, placed.stored)


def write_steps(local: LocalGraph) -> tuple[Step, ...]:
    """Write the steps of all calls in order, with the conversions between them."""
    between = iter(local.between.entries)
    steps: list[Step] = []
    for number, call in enumerate(local.placed.calls):
        steps.extend(Step(number, next(between)) for _ in call.glue)
        names, label = local.names(call), call.call.name
        star = label.rsplit(".", 1)[-1]
        for entry in local.blocks[call.call.block].entries:
            operators = tuple(_renamed(op, names, label, star) for op in entry)
            steps.append(Step(number, operators))
        steps.extend(Step(number, next(between)) for _ in call.leaving)
    steps.extend(Step(len(local.placed.calls), entry) for entry in between)
    return tuple(steps)


def _renamed(operator: Operator, names: Mapping[str, str], label: str, star: str) -> Operator:
    prefix = f"{label}/" if label else ""
    return Operator(
        name=names.get(operator.name, prefix + operator.name),
        target=operator.target,
        args={key: rename_arg(arg, names) for key, arg in operator.args.items()},
        outputs=tuple(names[value] for value in operator.outputs),
        module=operator.module.replace("*", star),
        source=operator.source,
        origin=prefix + operator.origin,
    )

"""The whole sequence of a device's operators, over all calls, before stages are cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

import attrs

from parframe.dims import Dimensions
from parframe.graph import Block, Operator, OperatorGraph, Tensor, rename
from parframe.partitioning.blocks import PlacedGraph, outer_block
from parframe.partitioning.cuts import Cut, Shape
from parframe.partitioning.localise import Entry, LocalBlock, localise
from parframe.plan import Layout as Lies

_BASE = re.compile(r"[@~].*$", re.DOTALL)


@attrs.frozen
class Step:
    """One entry of the sequence: operators that belong together, and where they come from."""

    call: int
    operators: tuple[Operator, ...]

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The values it takes that it does not define itself."""
        own = set(self.writes)
        return tuple(v for operator in self.operators for v in operator.inputs if v not in own)

    @cached_property
    def writes(self) -> tuple[str, ...]:
        """The values it defines."""
        return tuple(v for operator in self.operators for v in operator.outputs)


@attrs.frozen
class Sequence:
    """What devices of one shape would do if there were one stage.

    ``states`` are the caches: name, value; ``lies`` tells how values lie in the model's.
    """

    steps: tuple[Step, ...]
    tensors: Mapping[str, Tensor]
    states: tuple[tuple[str, str], ...]
    lies: Mapping[str, Lies]


def sequence(
    graph: OperatorGraph,
    dimensions: Dimensions,
    placed: PlacedGraph,
    cuts: tuple[Cut, ...],
    shape: Shape,
) -> Sequence:
    """Write out every call of every block for one shape of device."""
    local = {
        name: localise(block.block, dimensions.axes[name], block.actions, cuts, shape, block.given)
        for name, block in placed.blocks.items()
    }
    outer = outer_block(graph)
    glue = _Glue(outer, dimensions, placed, cuts, shape)
    steps: list[Step] = []
    tensors: dict[str, Tensor] = dict(glue.tensors)
    lies: dict[str, Lies] = dict(glue.lies)
    states: list[tuple[str, str]] = []
    for number, call in enumerate(placed.calls):
        for entry in glue.before[number]:
            steps.append(Step(number, entry.operators))
        block = placed.blocks[call.call.block].block
        wholes = call.call.names(block)
        names = _names(wholes, call.call.name, call.inputs, block, local[block.name])
        for own, tensor in local[block.name].tensors.items():
            tensors[names[own]] = attrs.evolve(tensor, name=names[own])
        for own, lie in local[block.name].lies.items():
            lies[names[own]] = Lies(wholes[lie.whole], lie.region, lie.partial)
        label = call.call.name
        star = label.rsplit(".", 1)[-1]
        for entry in local[block.name].entries:
            steps.append(
                Step(number, tuple(_renamed(op, names, label, star) for op in entry.operators))
            )
        states.extend(
            (f"{label}/{state.name}" if label else state.name, names[cached])
            for state, cached in zip(block.states, placed.blocks[block.name].states, strict=True)
        )
        steps.extend(Step(number, entry.operators) for entry in glue.behind[number])
    steps.extend(Step(len(placed.calls), entry.operators) for entry in glue.after)
    return Sequence(tuple(steps), tensors, tuple(states), lies)


class _Glue:
    """What is converted between calls, localised."""

    def __init__(
        self,
        outer: Block,
        dimensions: Dimensions,
        placed: PlacedGraph,
        cuts: tuple[Cut, ...],
        shape: Shape,
    ) -> None:
        between = (a for call in placed.calls for a in (*call.glue, *call.leaving))
        actions = (*between, *placed.glue)
        local = localise(outer, dimensions.outer, actions, cuts, shape, placed.held)
        self.tensors = local.tensors
        self.lies = local.lies
        entries = iter(local.entries)
        self.before: list[list[Entry]] = []
        self.behind: list[list[Entry]] = []
        for call in placed.calls:
            self.before.append([next(entries) for _ in call.glue])
            self.behind.append([next(entries) for _ in call.leaving])
        self.after: list[Entry] = list(entries)


def _names(
    own: Mapping[str, str],
    label: str,
    inputs: Mapping[str, str],
    block: Block,
    local: LocalBlock,
) -> dict[str, str]:
    """The names in the sequence of a local block's values."""
    given = {*block.inputs, *block.parameters}
    result: dict[str, str] = {}
    for name in local.tensors:
        base = _BASE.sub("", name)
        suffix = name[len(base) :]
        if name in inputs:
            result[name] = inputs[name]
        elif base in given and suffix:
            result[name] = f"{label}/{name}"
        else:
            result[name] = own[base] + suffix
    return result


def _renamed(operator: Operator, names: Mapping[str, str], label: str, star: str) -> Operator:
    prefix = f"{label}/" if label else ""
    return Operator(
        name=names.get(operator.name, prefix + operator.name),
        target=operator.target,
        args={key: rename(arg, names) for key, arg in operator.args.items()},
        outputs=tuple(names[value] for value in operator.outputs),
        module=operator.module.replace("*", star),
        source=operator.source,
        origin=prefix + operator.origin,
    )

"""Steps of one device in a shortened graph, shared by devices that differ in sizes only.

Devices of different degrees mostly run the same operators with other sizes. Blocks are localized
for each device shape, as far as the split dimensions concern them. Their operators are written out
for all calls only once for shapes that differ in sizes, and analyzed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from parframe.graph import Arg, Operator, Parameter, Ref, Tensor
from parframe.layout import dims_of
from parframe.mesh import Mesh
from parframe.partitioning.cuts import Shape, shape_of
from parframe.partitioning.local_block import LocalBlock
from parframe.partitioning.localize import localize_block
from parframe.partitioning.step_sequence import (
    LocalGraph,
    ModelSteps,
    localize_between_calls,
    write_steps,
)
from parframe.price.work.compressed.placement_cache import CachedPlacement
from parframe.price.work.operator_list import OperatorList
from parframe.price.work.stage_work import DeviceStructure
from parframe.sizes import Size


@attrs.frozen(eq=False)
class OperatorRange:
    """Operators of some steps, the number of operators of each step, and the parameters used."""

    operators: tuple[Operator, ...]
    lengths: tuple[int, ...]
    parameters: Mapping[str, Parameter]


class SharedSteps:
    """Steps of devices that differ in sizes only.

    The steps are those of one device: sizes among the operators' arguments must not be read. The
    attribute ``home`` has the block of every value, and the value's name in it.
    """

    def __init__(self, local: LocalGraph, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = parameters
        self.steps = write_steps(local)
        self.home: dict[str, tuple[str, str]] = {name: ("", name) for name in local.between.tensors}
        for call in local.placed.calls:
            for block_name, name in local.names(call).items():
                self.home[name] = call.call.block, block_name
        blocks = (local.between, *local.blocks.values())
        self.symbolic_sizes = tuple(
            dict.fromkeys(
                _symbolic(tensor) for block in blocks for tensor in block.tensors.values()
            )
        )
        self.ranges: dict[tuple[int, ...], OperatorRange] = {}
        self.structures: dict[object, DeviceStructure] = {}

    def operator_range(self, numbers: tuple[int, ...]) -> OperatorRange:
        """Return the operators of some steps."""
        if numbers not in self.ranges:
            steps = [self.steps[number] for number in numbers]
            operators = tuple(operator for step in steps for operator in step.operators)
            used = {name for operator in operators for name in operator.inputs}
            parameters = {k: v for k, v in self.parameters.items() if k in used}
            lengths = tuple(len(step.operators) for step in steps)
            self.ranges[numbers] = OperatorRange(operators, lengths, parameters)
        return self.ranges[numbers]

    def structure(self, operators: OperatorList) -> DeviceStructure:
        """Return the structure of an operator list, shared with lists that have an equal one.

        Structures are equal if operators, sends and outputs are the same and all values grow with
        the same symbols.
        """
        growth = tuple(map(operators.scalings.growth, self.symbolic_sizes))
        sends = tuple(value for value, _, _ in operators.sends)
        key = (id(operators.operators), operators.outputs, sends, growth)
        if key not in self.structures:
            self.structures[key] = DeviceStructure.of(operators)
        return self.structures[key]

    def tensors(self, local: LocalGraph) -> dict[str, Tensor]:
        """Return all values with the shapes that they have on one device."""
        blocks = {name: block.tensors for name, block in local.blocks.items()}
        blocks[""] = local.between.tensors
        return {name: blocks[block][own] for name, (block, own) in self.home.items()}


@attrs.frozen(eq=False)
class DeviceSteps:
    """Steps and tensors of one device shape, and the steps that it shares with others."""

    outline: ModelSteps
    shared: SharedSteps


class DeviceStepsCache:
    """Steps of all device shapes of one model, each written once."""

    def __init__(self) -> None:
        self.blocks: dict[object, tuple[LocalBlock, int]] = {}
        self.block_dims: dict[object, frozenset[str]] = {}
        self.block_kinds: dict[object, int] = {}
        self.shared: dict[object, SharedSteps] = {}
        self.known: dict[object, DeviceSteps] = {}

    def of(self, on: CachedPlacement, mesh: Mesh, rank: int) -> DeviceSteps:
        """Return the steps of a rank's device for the shortened graph in one stage.

        They are equal for all degrees with the same device shape. Symbolic splits then differ only
        in the offsets of other devices' parts, which nothing reads.
        """
        shape = shape_of(on.cuts, mesh, rank)
        key = (on.form, tuple(tuple(pieces.items()) for pieces in shape.pieces))
        if key not in self.known:
            self.known[key] = self._write(on, shape)
        return self.known[key]

    def _write(self, on: CachedPlacement, shape: Shape) -> DeviceSteps:
        blocks = {name: self._block(on, name, shape) for name in on.placed.blocks}
        between = localize_between_calls(on.graph, on.dimensions, on.placed, on.cuts, shape)
        local = LocalGraph(on.placed, {name: block for name, (block, _) in blocks.items()}, between)
        kinds = (*(kind for _, kind in blocks.values()), self._kind(between))
        shared = self.shared.get((on.form, kinds))
        if shared is None:
            shared = self.shared[on.form, kinds] = SharedSteps(local, on.graph.parameters)
        return DeviceSteps(ModelSteps(shared.steps, shared.tensors(local)), shared)

    def _block(self, on: CachedPlacement, name: str, shape: Shape) -> tuple[LocalBlock, int]:
        """Return a localized block, and a number that is equal for blocks that differ in sizes."""
        block, axes = on.placed.blocks[name], on.dimensions.tensor_dims[name]
        if (on.form, name) not in self.block_dims:
            dims = (dims_of(axis) for value in axes.values() for axis in value)
            self.block_dims[on.form, name] = frozenset().union(*dims)
        dims_here = self.block_dims[on.form, name]
        pieces = tuple(
            tuple((dim, piece) for dim, piece in cut_pieces.items() if dim in dims_here)
            for cut_pieces in shape.pieces
        )
        key = (on.form, name, pieces)
        if key not in self.blocks:
            local = localize_block(block.block, axes, block.actions, on.cuts, shape, block.given)
            self.blocks[key] = local, self._kind(local)
        return self.blocks[key]

    def _kind(self, local: LocalBlock) -> int:
        operators = tuple(
            (op.name, op.target, op.outputs, op.origin, (*op.args,), _non_numbers(op.args.values()))
            for entry in local.entries
            for op in entry
        )
        lengths = tuple(map(len, local.entries))
        values = tuple((name, _symbolic(tensor)) for name, tensor in local.tensors.items())
        return self.block_kinds.setdefault((operators, lengths, values), len(self.block_kinds))


def _symbolic(tensor: Tensor) -> tuple[Size, ...]:
    """Return the sizes of a tensor that are not numbers."""
    return tuple(size for size in tensor.shape if not isinstance(size, int))


def _non_numbers(args: Iterable[Arg]) -> tuple[object, ...]:
    """Return the values and words among arguments. Numbers are sizes, or the model's own."""
    found = (_non_numbers(arg) if isinstance(arg, tuple) else arg for arg in args)
    return tuple(arg for arg in found if isinstance(arg, Ref | str | tuple) and arg != ())

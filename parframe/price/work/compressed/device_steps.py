"""The short graph written out for a device: what is done once for all sizes, then the sizes.

Devices of different degrees mostly do the same, of other sizes. So blocks are made local for every
shape, each as far as it has to do with what is split; but their operators are written out for all
calls only once for those that differ in sizes alone, and looked through once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from parframe.graph import Arg, Operator, Parameter, Ref, Tensor
from parframe.layout import dims_of
from parframe.mesh import Mesh
from parframe.partitioning.cuts import Shape, shape_of
from parframe.partitioning.local_block import LocalBlock
from parframe.partitioning.localize import localise
from parframe.partitioning.step_sequence import LocalGraph, Outline, local_between, write_steps
from parframe.price.work.compressed.placement_cache import CachedPlacement
from parframe.price.work.operator_list import OperatorList
from parframe.price.work.stage_work import DeviceStructure
from parframe.sizes import Size


@attrs.frozen(eq=False)
class OperatorRange:
    """The operators of some steps, of how many each step consists, and the parameters they use."""

    operators: tuple[Operator, ...]
    lengths: tuple[int, ...]
    parameters: Mapping[str, Parameter]


class Frame:
    """What devices do, whatever the sizes.

    ``steps`` are those of one of them: of arguments that are sizes nothing may be read. ``home``
    has for every value its block and its name there.
    """

    def __init__(self, local: LocalGraph, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = parameters
        self.steps = write_steps(local)
        self.home: dict[str, tuple[str, str]] = {name: ("", name) for name in local.between.tensors}
        for call in local.placed.calls:
            for own, name in local.names(call).items():
                self.home[name] = call.call.block, own
        blocks = (local.between, *local.blocks.values())
        self.growing = tuple(
            dict.fromkeys(
                _symbolic(tensor) for block in blocks for tensor in block.tensors.values()
            )
        )
        self.portions: dict[tuple[int, ...], OperatorRange] = {}
        self.structures: dict[object, DeviceStructure] = {}

    def portion(self, numbers: tuple[int, ...]) -> OperatorRange:
        """The operators of some steps."""
        if numbers not in self.portions:
            steps = [self.steps[number] for number in numbers]
            operators = tuple(operator for step in steps for operator in step.operators)
            used = {name for operator in operators for name in operator.inputs}
            parameters = {k: v for k, v in self.parameters.items() if k in used}
            lengths = tuple(len(step.operators) for step in steps)
            self.portions[numbers] = OperatorRange(operators, lengths, parameters)
        return self.portions[numbers]

    def structure(self, listing: OperatorList) -> DeviceStructure:
        """The structure of a listing of some of the steps: that of one like it, if there was one.

        They are alike if the operators and what is sent and returned are the same, and all values
        grow with the same.
        """
        grow = tuple(map(listing.extents.bears, self.growing))
        sent = tuple(value for value, _, _ in listing.sent)
        key = (id(listing.operators), listing.outputs, sent, grow)
        if key not in self.structures:
            self.structures[key] = DeviceStructure.of(listing)
        return self.structures[key]


class FrameTensors(Mapping[str, Tensor]):
    """The values of a frame on a device of some shape, each as its block has it."""

    def __init__(self, home: Mapping[str, tuple[str, str]], local: LocalGraph) -> None:
        self.home = home
        self.tensors = {name: block.tensors for name, block in local.blocks.items()}
        self.tensors[""] = local.between.tensors

    def __getitem__(self, name: str) -> Tensor:
        block, own = self.home[name]
        return self.tensors[block][own]

    def __iter__(self) -> Iterator[str]:
        return iter(self.home)

    def __len__(self) -> int:
        return len(self.home)


@attrs.frozen(eq=False)
class DeviceOutline(Outline):
    """An outline whose steps are those of a frame."""

    frame: Frame


class DeviceOutlines:
    """The outlines of one model."""

    def __init__(self) -> None:
        self.blocks: dict[object, tuple[LocalBlock, int]] = {}
        self.named: dict[object, frozenset[str]] = {}
        self.likes: dict[object, int] = {}
        self.frames: dict[object, Frame] = {}
        self.known: dict[object, DeviceOutline] = {}

    def of(self, on: CachedPlacement, mesh: Mesh, rank: int) -> DeviceOutline:
        """What the device of a rank would do of the short graph in one stage.

        It is the same for all degrees that leave the shape: of what is split symbolically, only
        where the parts of others lie differs, and nothing is read of that.
        """
        shape = shape_of(on.cuts, mesh, rank)
        key = (on.form, tuple(tuple(pieces.items()) for pieces in shape.pieces))
        if key not in self.known:
            self.known[key] = self._drawn(on, shape)
        return self.known[key]

    def _drawn(self, on: CachedPlacement, shape: Shape) -> DeviceOutline:
        found = {name: self._block(on, name, shape) for name in on.placed.blocks}
        between = local_between(on.graph, on.dimensions, on.placed, on.cuts, shape)
        local = LocalGraph(on.placed, {name: block for name, (block, _) in found.items()}, between)
        likes = (*(like for _, like in found.values()), self._like(between))
        frame = self.frames.get((on.form, likes))
        if frame is None:
            frame = self.frames[on.form, likes] = Frame(local, on.graph.parameters)
        return DeviceOutline(frame.steps, FrameTensors(frame.home, local), frame)

    def _block(self, on: CachedPlacement, name: str, shape: Shape) -> tuple[LocalBlock, int]:
        """A block made local, and a number that is equal for those that differ in sizes alone."""
        block, axes = on.placed.blocks[name], on.dimensions.axes[name]
        if (on.form, name) not in self.named:
            every = (dims_of(axis) for value in axes.values() for axis in value)
            self.named[on.form, name] = frozenset().union(*every)
        here = self.named[on.form, name]
        pieces = tuple(
            tuple((dim, piece) for dim, piece in own.items() if dim in here) for own in shape.pieces
        )
        key = (on.form, name, pieces)
        if key not in self.blocks:
            local = localise(block.block, axes, block.actions, on.cuts, shape, block.given)
            self.blocks[key] = local, self._like(local)
        return self.blocks[key]

    def _like(self, local: LocalBlock) -> int:
        operators = tuple(
            (one.name, one.target, one.outputs, one.origin, (*one.args,), _told(one.args.values()))
            for entry in local.entries
            for one in entry.operators
        )
        ends = tuple(len(entry.operators) for entry in local.entries)
        values = tuple((name, _symbolic(tensor)) for name, tensor in local.tensors.items())
        return self.likes.setdefault((operators, ends, values), len(self.likes))


def _symbolic(tensor: Tensor) -> tuple[Size, ...]:
    """The sizes of a tensor that are no numbers."""
    return tuple(size for size in tensor.shape if not isinstance(size, int))


def _told(args: Iterable[Arg]) -> tuple[object, ...]:
    """The values and words among arguments; numbers are sizes, or the model's own."""
    found = (_told(arg) if isinstance(arg, tuple) else arg for arg in args)
    return tuple(arg for arg in found if isinstance(arg, Ref | str | tuple) and arg != ())

"""Collectives of a program as functional collectives in an fx graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch.fx import Node

import parframe.runtime.shared_memory_collectives  # noqa: F401  registers its operators
from parframe.errors import ParframeError
from parframe.graph import Operator, Tensor
from parframe.layout import Span
from parframe.rules.communication import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    BROADCAST,
    REDUCE_SCATTER,
)
from parframe.runtime.graph_writer import GraphWriter, Number
from parframe.runtime.regions import Regions, put, shape_of, take
from parframe.sizes import Size

_aten = torch.ops.aten
_c10d = torch.ops._c10d_functional

_REDUCTIONS = {
    "sum": "sum", "prod": "product", "max": "max", "min": "min", "any": "max", "all": "min"
}  # fmt: skip
"""Reductions by the names of functional collectives; booleans are reduced as 0 and 1."""


@attrs.frozen
class GroupInfo:
    """A process group as operators take it: its name, its size, this rank's index in it."""

    name: str
    size: int
    rank: int


@attrs.frozen
class CollectiveCall:
    """A collective to be emitted; ranks that only receive have no input tensor."""

    operator: Operator
    tensor: Node | None
    result: Tensor
    group: GroupInfo
    device: torch.device

    @property
    def input(self) -> Node:
        """The input, which must exist."""
        if self.tensor is None:
            raise ParframeError(
                "run", self.operator.name, "has no input", "check the plan with parframe.check"
            )
        return self.tensor

    def regions(self, slot: str) -> list[Regions]:
        """Return the regions of each rank of the group in a tensor, from an argument."""
        regions: Any = self.operator.args[slot]
        return [regions[rank] for rank in range(self.group.size)]


def emit_collective(writer: GraphWriter, call: CollectiveCall) -> Node:
    """Emit one collective."""
    return _COLLECTIVES[call.operator.target](writer, call)


def _all_reduce(writer: GraphWriter, call: CollectiveCall) -> Node:
    reduction, group, tensor = str(call.operator.args["reduction"]), call.group, call.input
    boolean = reduction in ("any", "all")
    if boolean:
        tensor = writer.call(_aten.to.dtype, tensor, torch.uint8)
    name = _REDUCTIONS[reduction]
    if call.device.type == "cpu":
        total = writer.call(
            torch.ops.parframe.cpu_all_reduce.default, tensor, name, group.size, group.rank,
            group.name,
        )  # fmt: skip
    else:
        total = _call_and_wait(writer, _c10d.all_reduce.default, tensor, name, group.name)
    return writer.call(_aten.to.dtype, total, torch.bool) if boolean else total


def _all_gather(writer: GraphWriter, call: CollectiveCall) -> Node:
    parts = call.regions("parts")
    dim = _concatenated_dim(parts)
    if dim is not None:
        return _gather_along(writer, call, parts, dim)
    flat = writer.call(_aten.reshape.default, call.input, [-1])
    shapes = [shape_of(writer, part) for part in parts]
    lengths = [writer.product(*shape) for shape in shapes]
    pieces = _gather_pieces(writer, call, flat, lengths)
    shaped = [
        writer.call(_aten.view.default, piece, shape)
        for piece, shape in zip(pieces, shapes, strict=True)
    ]
    return _assemble(writer, call, parts, shaped)


def _gather_along(
    writer: GraphWriter, call: CollectiveCall, parts: list[Regions], dim: int
) -> Node:
    """Gather parts that are concatenated along one dim."""
    lengths = [shape_of(writer, part)[dim] for part in parts]
    moved = writer.call(_aten.movedim.int, call.input, dim, 0) if dim else call.input
    pieces = _gather_pieces(writer, call, moved, lengths)
    whole = writer.call(_aten.cat.default, pieces, 0) if len(pieces) > 1 else pieces[0]
    return writer.call(_aten.movedim.int, whole, 0, dim) if dim else whole


def _gather_pieces(
    writer: GraphWriter, call: CollectiveCall, tensor: Node, lengths: Sequence[Number]
) -> list[Node]:
    """Gather the tensors of all ranks along dim 0; in one piece if all have equal lengths.

    Tensors of unequal lengths are padded to the longest one.
    """
    equal = len(set(lengths)) == 1
    longest = lengths[0]
    for length in lengths[1:]:
        if length != longest:
            longest = writer.arithmetic(torch.sym_max, longest, length)
    if not equal:
        missing = writer.arithmetic(operator.sub, longest, lengths[call.group.rank])
        tensor = writer.call(pad_first_dim, tensor, missing)
    whole = _gather_equal(writer, call, tensor)
    if equal:
        return [whole]
    pieces = []
    for rank, length in enumerate(lengths):
        start = writer.product(rank, longest) if rank else 0
        pieces.append(writer.call(_aten.narrow.default, whole, 0, start, length))
    return pieces


def _gather_equal(writer: GraphWriter, call: CollectiveCall, tensor: Node) -> Node:
    """Gather tensors of equal shapes along dim 0."""
    group = call.group
    if call.device.type == "cpu":
        return writer.call(
            torch.ops.parframe.cpu_all_gather.default, tensor, group.size, group.rank, group.name
        )
    return _call_and_wait(
        writer, _c10d.all_gather_into_tensor.default, tensor, group.size, group.name
    )


def pad_first_dim(tensor: torch.Tensor, missing: int) -> torch.Tensor:
    """Append a number of zero entries along dim 0."""
    return torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))])


def _reduce_scatter(writer: GraphWriter, call: CollectiveCall) -> Node:
    parts, group = call.regions("parts"), call.group
    dim = _concatenated_dim(parts)
    reduction = str(call.operator.args["reduction"])
    lengths = [shape_of(writer, part)[dim] for part in parts] if dim is not None else []
    if dim is None or len(set(lengths)) != 1 or reduction in ("any", "all"):
        return take(writer, _all_reduce(writer, call), parts[group.rank])
    moved = writer.call(_aten.movedim.int, call.input, dim, 0) if dim else call.input
    scattered = _call_and_wait(
        writer, _c10d.reduce_scatter_tensor.default, moved, _REDUCTIONS[reduction], group.size,
        group.name,
    )  # fmt: skip
    return writer.call(_aten.movedim.int, scattered, 0, dim) if dim else scattered


def _all_to_all(writer: GraphWriter, call: CollectiveCall) -> Node:
    sends, parts = call.regions("sends"), call.regions("parts")
    outgoing = [
        writer.call(_aten.reshape.default, take(writer, call.input, region), [-1])
        for region in sends
    ]
    send_sizes = [writer.product(*shape_of(writer, region)) for region in sends]
    shapes = [shape_of(writer, region) for region in parts]
    receive_sizes = [writer.product(*shape) for shape in shapes]
    flat = writer.call(_aten.cat.default, outgoing, 0)
    received = _call_and_wait(
        writer, _c10d.all_to_all_single.default, flat, receive_sizes, send_sizes, call.group.name
    )
    pieces = writer.call(_aten.split_with_sizes.default, received, receive_sizes, 0)
    shaped = [
        writer.call(_aten.view.default, writer.call(operator.getitem, pieces, rank), shape)
        for rank, shape in enumerate(shapes)
    ]
    return _assemble(writer, call, parts, shaped)


def _broadcast(writer: GraphWriter, call: CollectiveCall) -> Node:
    tensor = call.tensor
    if tensor is None:
        shape = [writer.number(size) for size in call.result.shape]
        dtype: torch.dtype = getattr(torch, call.result.dtype)
        tensor = writer.call(_aten.empty.memory_format, shape, dtype=dtype, device=call.device)
    root: Any = call.operator.args["root"]
    return _call_and_wait(writer, _c10d.broadcast.default, tensor, root, call.group.name)


_COLLECTIVES: Mapping[str, Callable[[GraphWriter, CollectiveCall], Node]] = {
    ALL_REDUCE.target: _all_reduce,
    ALL_GATHER.target: _all_gather,
    REDUCE_SCATTER.target: _reduce_scatter,
    ALL_TO_ALL.target: _all_to_all,
    BROADCAST.target: _broadcast,
}


def _call_and_wait(writer: GraphWriter, target: Callable[..., Any], *args: Any) -> Node:
    return writer.call(_c10d.wait_tensor.default, writer.call(target, *args))


def _assemble(
    writer: GraphWriter, call: CollectiveCall, parts: Sequence[Regions], pieces: Sequence[Node]
) -> Node:
    """Assemble a tensor from pieces, which cover it as the check of the plan has proved."""
    shape = [writer.number(size) for size in call.result.shape]
    whole = writer.call(_aten.new_empty.default, pieces[0], shape)
    for region, piece in zip(parts, pieces, strict=True):
        put(writer, whole, region, piece)
    return whole


def _concatenated_dim(parts: Sequence[Regions]) -> int | None:
    """Return the dim along which parts in their order make up the whole, if there is one."""
    split = [dim for dim, regions in enumerate(zip(*parts, strict=True)) if len(set(regions)) > 1]
    if len(split) != 1:
        return None
    (dim,) = split
    others = (region for part in parts for index, region in enumerate(part) if index != dim)
    if not all(isinstance(span, Span) and span.whole for region in others for span in region):
        return None
    end: Size = 0
    for part in parts:
        if len(part[dim]) != 1 or not isinstance(part[dim][0], Span):
            return None
        span: Any = part[dim][0]
        if span.start != end:
            return None
        end, size = span.stop, span.size
    return dim if end == size else None

"""Communication operators of a program as functional collectives in an fx graph."""

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
from parframe.runtime.graph_writer import Number, Writer
from parframe.runtime.regions import Regions, put, shape_of, take
from parframe.sizes import Size

_aten = torch.ops.aten
_c10d = torch.ops._c10d_functional

_REDUCTIONS = {
    "sum": "sum", "prod": "product", "max": "max", "min": "min", "any": "max", "all": "min"
}  # fmt: skip
"""The names that functional collectives have for reductions; of truths as 0 and 1."""


@attrs.frozen
class Meeting:
    """A group of ranks that communicate: its name in PyTorch, its size, and one's place in it."""

    name: str
    size: int
    place: int


@attrs.frozen
class Sent:
    """A communication operator where it is written.

    Parameters
    ----------
    operator
        The operator of the program.
    given
        The tensor that it is given; None where another member has it.
    result
        What it gives, in the program's terms.
    meeting
        Who takes part.
    device
        Where tensors lie.
    """

    operator: Operator
    given: Node | None
    result: Tensor
    meeting: Meeting
    device: torch.device

    def regions(self, slot: str, member: int) -> Regions:
        """The region in a tensor that belongs to a member."""
        listed: Any = self.operator.args[slot]
        found: Regions = listed[member]
        return found


def collective(writer: Writer, sent: Sent) -> Node:
    """Write one collective.

    Raises
    ------
    ParframeError
        Of kind ``run``, if there is none of this name.
    """
    write = _COLLECTIVES.get(sent.operator.target)
    if write is None:
        raise ParframeError(
            "run",
            sent.operator.name,
            f"{sent.operator.target} is no collective",
            "check the plan with parframe.check",
        )
    return write(writer, sent)


def _all_reduce(writer: Writer, sent: Sent) -> Node:
    return _reduced(writer, sent, _given(sent))


def _all_gather(writer: Writer, sent: Sent) -> Node:
    parts = [sent.regions("parts", member) for member in range(sent.meeting.size)]
    axis = _row(parts)
    if axis is not None:
        return _gathered_along(writer, sent, parts, axis)
    flat = writer.call(_aten.reshape.default, _given(sent), [-1])
    shapes = [shape_of(writer, part) for part in parts]
    lengths = [writer.product(*shape) for shape in shapes]
    pieces = _gathered(writer, sent, flat, lengths)
    shaped = [
        writer.call(_aten.view.default, piece, shape)
        for piece, shape in zip(pieces, shapes, strict=True)
    ]
    return _filled(writer, sent, parts, shaped)


def _gathered_along(writer: Writer, sent: Sent, parts: list[Regions], axis: int) -> Node:
    """Parts that lie one after the other along one axis."""
    lengths = [shape_of(writer, part)[axis] for part in parts]
    first = writer.call(_aten.movedim.int, _given(sent), axis, 0) if axis else _given(sent)
    pieces = _gathered(writer, sent, first, lengths)
    whole = writer.call(_aten.cat.default, pieces, 0) if len(pieces) > 1 else pieces[0]
    return writer.call(_aten.movedim.int, whole, 0, axis) if axis else whole


def _gathered(writer: Writer, sent: Sent, first: Node, lengths: Sequence[Number]) -> list[Node]:
    """What every member has, each of its own length along axis 0; in one piece if all are equal."""
    meeting = sent.meeting
    equal = len(set(lengths)) == 1
    longest = lengths[0]
    for length in lengths[1:]:
        if length != longest:
            longest = writer.arithmetic(torch.sym_max, longest, length)
    if not equal:
        missing = writer.arithmetic(operator.sub, longest, lengths[meeting.place])
        first = writer.call(padded, first, missing)
    whole = _whole(writer, sent, first)
    if equal:
        return [whole]
    pieces = []
    for place, length in enumerate(lengths):
        start = writer.product(place, longest) if place else 0
        pieces.append(writer.call(_aten.narrow.default, whole, 0, start, length))
    return pieces


def _whole(writer: Writer, sent: Sent, first: Node) -> Node:
    """What all members have, equal in shape, one after the other along axis 0."""
    size, place, name = sent.meeting.size, sent.meeting.place, sent.meeting.name
    if sent.device.type == "cpu":
        return writer.call(torch.ops.parframe.gathered.default, first, size, place, name)
    return _done(writer, _c10d.all_gather_into_tensor.default, first, size, name)


def padded(first: torch.Tensor, missing: int) -> torch.Tensor:
    """A tensor with so many more entries along axis 0."""
    return torch.cat([first, first.new_zeros((missing, *first.shape[1:]))])


def _reduce_scatter(writer: Writer, sent: Sent) -> Node:
    parts = [sent.regions("parts", member) for member in range(sent.meeting.size)]
    axis = _row(parts)
    kind = str(sent.operator.args["reduction"])
    lengths = [shape_of(writer, part)[axis] for part in parts] if axis is not None else []
    if axis is None or len(set(lengths)) != 1 or kind in ("any", "all"):
        total = _reduced(writer, sent, _given(sent))
        return take(writer, total, parts[sent.meeting.place])
    first = writer.call(_aten.movedim.int, _given(sent), axis, 0) if axis else _given(sent)
    meeting = sent.meeting
    own = _done(
        writer, _c10d.reduce_scatter_tensor.default, first, _REDUCTIONS[kind], meeting.size,
        meeting.name,
    )  # fmt: skip
    return writer.call(_aten.movedim.int, own, 0, axis) if axis else own


def _all_to_all(writer: Writer, sent: Sent) -> Node:
    members = range(sent.meeting.size)
    sends = [sent.regions("sends", member) for member in members]
    parts = [sent.regions("parts", member) for member in members]
    out = [
        writer.call(_aten.reshape.default, take(writer, _given(sent), region), [-1])
        for region in sends
    ]
    out_sizes = [writer.product(*shape_of(writer, region)) for region in sends]
    shapes = [shape_of(writer, region) for region in parts]
    in_sizes = [writer.product(*shape) for shape in shapes]
    flat = writer.call(_aten.cat.default, out, 0)
    came = _done(
        writer, _c10d.all_to_all_single.default, flat, in_sizes, out_sizes, sent.meeting.name
    )
    pieces = writer.call(_aten.split_with_sizes.default, came, in_sizes, 0)
    shaped = [
        writer.call(_aten.view.default, writer.call(operator.getitem, pieces, place), shape)
        for place, shape in enumerate(shapes)
    ]
    return _filled(writer, sent, parts, shaped)


def _broadcast(writer: Writer, sent: Sent) -> Node:
    given = sent.given
    if given is None:
        shape = [writer.number(size) for size in sent.result.shape]
        given = writer.call(
            _aten.empty.memory_format, shape, dtype=_dtype(sent.result), device=sent.device
        )
    root: Any = sent.operator.args["root"]
    return _done(writer, _c10d.broadcast.default, given, root, sent.meeting.name)


_COLLECTIVES: Mapping[str, Callable[[Writer, Sent], Node]] = {
    "parframe.all_reduce": _all_reduce,
    "parframe.all_gather": _all_gather,
    "parframe.reduce_scatter": _reduce_scatter,
    "parframe.all_to_all": _all_to_all,
    "parframe.broadcast": _broadcast,
}


def _reduced(writer: Writer, sent: Sent, given: Node) -> Node:
    kind = str(sent.operator.args["reduction"])
    truths = kind in ("any", "all")
    if truths:
        given = writer.call(_aten.to.dtype, given, torch.uint8)
    reduction, meeting = _REDUCTIONS[kind], sent.meeting
    if sent.device.type == "cpu":
        total = writer.call(
            torch.ops.parframe.reduced.default, given, reduction, meeting.size, meeting.place,
            meeting.name,
        )  # fmt: skip
    else:
        total = _done(writer, _c10d.all_reduce.default, given, reduction, meeting.name)
    return writer.call(_aten.to.dtype, total, torch.bool) if truths else total


def _done(writer: Writer, target: Callable[..., Any], *args: Any) -> Node:
    return writer.call(_c10d.wait_tensor.default, writer.call(target, *args))


def _filled(writer: Writer, sent: Sent, parts: Sequence[Regions], pieces: Sequence[Node]) -> Node:
    """A tensor of pieces; the plan's check has proved that they fill it."""
    shape = [writer.number(size) for size in sent.result.shape]
    whole = writer.call(_aten.new_empty.default, pieces[0], shape)
    for region, piece in zip(parts, pieces, strict=True):
        put(writer, whole, region, piece)
    return whole


def _row(parts: Sequence[Regions]) -> int | None:
    """The axis along which the parts lie one after the other and fill it, if there is one."""
    differ = [axis for axis, found in enumerate(zip(*parts, strict=True)) if len(set(found)) > 1]
    if len(differ) != 1:
        return None
    axis = differ[0]
    others = (region for part in parts for at, region in enumerate(part) if at != axis)
    if not all(isinstance(f, Span) and f.whole for region in others for f in region):
        return None
    at: Size = 0
    for part in parts:
        if len(part[axis]) != 1 or not isinstance(part[axis][0], Span):
            return None
        span: Any = part[axis][0]
        if span.start != at:
            return None
        at, size = span.stop, span.size
    return axis if at == size else None


def _given(sent: Sent) -> Node:
    if sent.given is None:
        raise ParframeError(
            "run", sent.operator.name, "gives no tensor", "check the plan with parframe.check"
        )
    return sent.given


def _dtype(tensor: Tensor) -> torch.dtype:
    found: torch.dtype = getattr(torch, tensor.dtype)
    return found

"""Taking regions out of tensors and putting pieces into them, in an fx graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from parframe.layout import Join, Region, Span, region_length, region_size
from parframe.runtime.graph_writer import Number, Writer

_aten = torch.ops.aten

Regions = Sequence[Region]
"""A region for every axis of a tensor."""


def take(writer: Writer, tensor: Node, regions: Regions) -> Node:
    """The part of a tensor that lies in the regions."""
    for axis, region in enumerate(regions):
        tensor = _take(writer, tensor, axis, region)
    return tensor


def put(writer: Writer, target: Node, regions: Regions, piece: Node) -> None:
    """Write a piece into the regions of a tensor that the graph has made itself."""
    for axis, region in enumerate(regions):
        if not region:
            continue
        if len(region) > 1:
            target = _unflatten(writer, target, axis, [region_size((part,)) for part in region])
            piece = _unflatten(writer, piece, axis, [region_length((part,)) for part in region])
            split = tuple((part,) for part in region)
            return put(writer, target, (*regions[:axis], *split, *regions[axis + 1 :]), piece)
        (part,) = region
        if isinstance(part, Join):
            return _put_parts(writer, target, regions, piece, axis, part)
        if not part.whole:
            target = _narrow(writer, target, axis, part)
            whole = Span(part.stop - part.start, 0, part.stop - part.start)
            regions = (*regions[:axis], (whole,), *regions[axis + 1 :])
    writer.call(_aten.copy_.default, target, piece)
    return None


def shape_of(writer: Writer, regions: Regions) -> list[Number]:
    """The shape of the part that lies in the regions."""
    return [writer.number(region_length(region)) for region in regions]


def _take(writer: Writer, tensor: Node, axis: int, region: Region) -> Node:
    if not region:
        return tensor
    if len(region) > 1:
        tensor = _unflatten(writer, tensor, axis, [region_size((part,)) for part in region])
        for place, part in enumerate(region):
            tensor = _take(writer, tensor, axis + place, (part,))
        return writer.call(_aten.flatten.using_ints, tensor, axis, axis + len(region) - 1)
    (part,) = region
    if isinstance(part, Span):
        return tensor if part.whole else _narrow(writer, tensor, axis, part)
    pieces = _split(writer, tensor, axis, [region_size(inner) for inner in part.parts])
    taken = [_take(writer, own, axis, inner) for own, inner in zip(pieces, part.parts, strict=True)]
    return writer.call(_aten.cat.default, taken, axis)


def _put_parts(
    writer: Writer, target: Node, regions: Regions, piece: Node, axis: int, join: Join
) -> None:
    """Write the pieces of a concatenated axis one after the other."""
    targets = _split(writer, target, axis, [region_size(inner) for inner in join.parts])
    pieces = _split(writer, piece, axis, [region_length(inner) for inner in join.parts])
    for onto, inner, own in zip(targets, join.parts, pieces, strict=True):
        put(writer, onto, (*regions[:axis], inner, *regions[axis + 1 :]), own)


def _narrow(writer: Writer, tensor: Node, axis: int, part: Span) -> Node:
    start, stop = writer.number(part.start), writer.number(part.stop)
    length = writer.arithmetic(operator.sub, stop, start)
    return writer.call(_aten.narrow.default, tensor, axis, start, length)


def _unflatten(writer: Writer, tensor: Node, axis: int, sizes: list[Any]) -> Node:
    return writer.call(_aten.unflatten.int, tensor, axis, [writer.number(size) for size in sizes])


def _split(writer: Writer, tensor: Node, axis: int, sizes: list[Any]) -> list[Node]:
    lengths = [writer.number(size) for size in sizes]
    pieces = writer.call(_aten.split_with_sizes.default, tensor, lengths, axis)
    return [writer.call(operator.getitem, pieces, place) for place in range(len(sizes))]

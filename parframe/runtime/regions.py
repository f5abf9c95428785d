"""Regions of tensors in an fx graph: read a region, write a tensor into a region."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from parframe.layout import Join, Region, Span, region_length, region_size
from parframe.runtime.graph_writer import GraphWriter, Number

_aten = torch.ops.aten

Regions = Sequence[Region]
"""A region for every dim of a tensor."""


def take(writer: GraphWriter, tensor: Node, regions: Regions) -> Node:
    """Emit reading the part of a tensor that regions select."""
    for dim, region in enumerate(regions):
        tensor = _take(writer, tensor, dim, region)
    return tensor


def put(writer: GraphWriter, target: Node, regions: Regions, piece: Node) -> None:
    """Emit writing a tensor into a region of a tensor that the graph has created itself."""
    for dim, region in enumerate(regions):
        if not region:
            continue
        if len(region) > 1:
            target = _unflatten(writer, target, dim, [region_size((part,)) for part in region])
            piece = _unflatten(writer, piece, dim, [region_length((part,)) for part in region])
            split = tuple((part,) for part in region)
            return put(writer, target, (*regions[:dim], *split, *regions[dim + 1 :]), piece)
        (part,) = region
        if isinstance(part, Join):
            return _put_parts(writer, target, regions, piece, dim, part)
        if not part.whole:
            target = _narrow(writer, target, dim, part)
            whole = Span(part.stop - part.start, 0, part.stop - part.start)
            regions = (*regions[:dim], (whole,), *regions[dim + 1 :])
    writer.call(_aten.copy_.default, target, piece)
    return None


def shape_of(writer: GraphWriter, regions: Regions) -> list[Number]:
    """Return the shape of the part that regions select."""
    return [writer.number(region_length(region)) for region in regions]


def _take(writer: GraphWriter, tensor: Node, dim: int, region: Region) -> Node:
    if not region:
        return tensor
    if len(region) > 1:
        tensor = _unflatten(writer, tensor, dim, [region_size((part,)) for part in region])
        for place, part in enumerate(region):
            tensor = _take(writer, tensor, dim + place, (part,))
        return writer.call(_aten.flatten.using_ints, tensor, dim, dim + len(region) - 1)
    (part,) = region
    if isinstance(part, Span):
        return tensor if part.whole else _narrow(writer, tensor, dim, part)
    pieces = _split(writer, tensor, dim, [region_size(inner) for inner in part.parts])
    segments = [
        _take(writer, piece, dim, inner) for piece, inner in zip(pieces, part.parts, strict=True)
    ]
    return writer.call(_aten.cat.default, segments, dim)


def _put_parts(
    writer: GraphWriter, target: Node, regions: Regions, piece: Node, dim: int, join: Join
) -> None:
    """Emit writing the segments of a concatenated dim one after the other."""
    targets = _split(writer, target, dim, [region_size(inner) for inner in join.parts])
    pieces = _split(writer, piece, dim, [region_length(inner) for inner in join.parts])
    for segment, inner, part in zip(targets, join.parts, pieces, strict=True):
        put(writer, segment, (*regions[:dim], inner, *regions[dim + 1 :]), part)


def _narrow(writer: GraphWriter, tensor: Node, dim: int, part: Span) -> Node:
    start, stop = writer.number(part.start), writer.number(part.stop)
    length = writer.arithmetic(operator.sub, stop, start)
    return writer.call(_aten.narrow.default, tensor, dim, start, length)


def _unflatten(writer: GraphWriter, tensor: Node, dim: int, sizes: list[Any]) -> Node:
    return writer.call(_aten.unflatten.int, tensor, dim, [writer.number(size) for size in sizes])


def _split(writer: GraphWriter, tensor: Node, dim: int, sizes: list[Any]) -> list[Node]:
    lengths = [writer.number(size) for size in sizes]
    pieces = writer.call(_aten.split_with_sizes.default, tensor, lengths, dim)
    return [writer.call(operator.getitem, pieces, place) for place in range(len(sizes))]

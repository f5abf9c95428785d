"""Regions of tensors as shards, and shards under the dims of another use of a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from parframe.checking.samples import same_size
from parframe.checking.tensor_types import Ranges, TensorShard, make_shard, sizes_of
from parframe.layout import (
    Leaf,
    Pieces,
    Range,
    Region,
    Segments,
    Span,
    TensorDim,
    dim_size,
    local_size,
)
from parframe.plan import Part
from parframe.sizes import Size, divide, product, simplify


def region_ranges(tensor_dim: TensorDim, region: Region, frame: Pieces) -> dict[str, Range] | None:
    """Return the ranges of named dimensions that a region of a tensor dim selects.

    ``frame`` has the ranges of the tensor; an absent dimension is whole. Return None where the
    region crosses dimensions.
    """
    found: dict[str, Range] = {}
    if all(_consume(list(tensor_dim), region, frame, found)):
        return found
    return None


def _consume(
    tensor_dim: list[Leaf | Segments], region: Region, frame: Pieces, found: dict[str, Range]
) -> Iterator[bool]:
    """Match a tensor dim with a region, part by part; yield whether each part matches."""
    rest = [(factor, local_size((factor,), frame)) for factor in tensor_dim]
    for part in region:
        while rest and rest[0][1] == 1 and _omits_factor(part, rest[0][0]):
            _keep_frame_range(rest.pop(0)[0], frame, found)
        if not rest:
            yield False
            return
        if not isinstance(part, Span):
            factor = rest.pop(0)[0]
            if not isinstance(factor, Segments) or len(factor.parts) != len(part.parts):
                yield False
                return
            for inner, inside in zip(factor.parts, part.parts, strict=True):
                yield from _consume(list(inner), inside, frame, found)
            continue
        head, size = rest.pop(0)
        minor: Size = 1
        while not same_size(product((size, minor)), part.size):
            if not rest:
                yield False
                return
            other, more = rest.pop(0)
            _keep_frame_range(other, frame, found)
            minor = product((minor, more))
        yield _take_span(head, part, minor, frame, found)
    for factor, size in rest:
        _keep_frame_range(factor, frame, found)
        yield size == 1 or size == 0


def _omits_factor(part: object, factor: Leaf | Segments) -> bool:
    """Return whether the region leaves out a factor of size one before this part."""
    if isinstance(part, Span):
        return not same_size(part.size, 1)
    return isinstance(factor, Leaf)


def _take_span(
    head: Leaf | Segments, part: Span, minor: Size, frame: Pieces, found: dict[str, Range]
) -> bool:
    """Note the range of the major dimension that a span selects; return whether there is one."""
    if part.start == 0 and same_size(part.stop, part.size):
        _keep_frame_range(head, frame, found)
        return True
    start, stop = divide(part.start, minor), divide(part.stop, minor)
    if isinstance(head, Segments) or start is None or stop is None:
        return False
    base = frame[head.dim].start if head.dim in frame else 0
    new = Range(simplify(base + start), simplify(base + stop))
    return found.setdefault(head.dim, new) == new


def _keep_frame_range(factor: Leaf | Segments, frame: Pieces, found: dict[str, Range]) -> None:
    if isinstance(factor, Segments):
        for part in factor.parts:
            for inner in part:
                _keep_frame_range(inner, frame, found)
    elif factor.dim in frame:
        found.setdefault(factor.dim, frame[factor.dim])


def shard_of_part(tensor_dims: tuple[TensorDim, ...], part: Part) -> TensorShard | None:
    """Return the shard that a part's region selects; None if it crosses dimensions."""
    found = pieces_of_regions(tensor_dims, part.region, [()] * len(tensor_dims))
    return make_shard(tensor_dims, found) if found is not None else None


def pieces_of_regions(
    tensor_dims: tuple[TensorDim, ...], regions: Sequence[object], frame: Sequence[Ranges]
) -> list[Mapping[str, Range]] | None:
    """Return the pieces that regions of a tensor select; None if one crosses dimensions."""
    if len(regions) != len(tensor_dims):
        return None
    result: list[Mapping[str, Range]] = []
    for tensor_dim, region, outer in zip(tensor_dims, regions, frame, strict=True):
        if not isinstance(region, tuple):
            return None
        found = region_ranges(tensor_dim, region, dict(outer))
        if found is None:
            return None
        result.append(found)
    return result


def align_shard(shard: TensorShard, tensor_dims: tuple[TensorDim, ...]) -> TensorShard | None:
    """Return a shard under the dims of another use of its tensor; None if these do not fit."""
    if shard.tensor_dims is tensor_dims:
        return shard
    if shard.tensor_dims == tensor_dims:
        return make_shard(tensor_dims, map(dict, shard.ranges))
    if len(shard.tensor_dims) != len(tensor_dims):
        return None
    for own, tensor_dim, ranges in zip(shard.tensor_dims, tensor_dims, shard.ranges, strict=True):
        if not same_size(dim_size(own), dim_size(tensor_dim)):
            return None
        if ranges and (
            own != tensor_dim and not {dim for dim, _ in ranges} <= set(sizes_of(tensor_dim))
        ):
            return None
    aligned = make_shard(tensor_dims, map(dict, shard.ranges))
    return aligned if all(map(same_size, aligned.shape, shard.shape)) else None


def format_shape(shape: Sequence[object]) -> str:
    """Return a shape as text."""
    return f"[{', '.join(map(str, shape))}]"

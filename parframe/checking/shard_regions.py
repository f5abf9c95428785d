"""Shards from regions, and shards under the dims of another use of a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parframe.checking.region_ranges import region_ranges
from parframe.checking.samples import same_size
from parframe.checking.tensor_types import Ranges, TensorShard, make_shard, sizes_of
from parframe.layout import Range, TensorDim, dim_size
from parframe.plan import Part


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
        found = (
            region_ranges(tensor_dim, region, dict(outer)) if isinstance(region, tuple) else None
        )
        if found is None:
            return None
        result.append(found)
    return result


def align_shard(shard: TensorShard, tensor_dims: tuple[TensorDim, ...]) -> TensorShard | None:
    """Return a shard under the dims of another use of its tensor; None if these do not fit."""
    if shard.tensor_dims == tensor_dims:
        return (
            shard
            if shard.tensor_dims is tensor_dims
            else make_shard(tensor_dims, map(dict, shard.ranges))
        )
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

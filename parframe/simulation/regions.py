"""Regions of tensors: read a region of a tensor, write a tensor into a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from parframe.errors import ParframeError
from parframe.layout import Join, Region, Span, compact_region, region_length, region_size
from parframe.sizes import evaluate

Regions = tuple[Region, ...]
"""A region for every dim of a tensor, without symbols."""


def evaluate_regions(regions: Sequence[Region], sizes: Mapping[str, int]) -> Regions:
    """Replace the symbols in regions with their values; a symbol without one is an error."""
    try:
        return tuple(compact_region(tuple(_number(part, sizes) for part in dim)) for dim in regions)
    except KeyError as error:
        raise ParframeError(
            "run",
            "region",
            f"it depends on symbol {error.args[0]!r}, which has no value",
            "check the plan with parframe.check",
        ) from error


def take(tensor: torch.Tensor, regions: Regions) -> torch.Tensor:
    """Return the part of a tensor that regions of its shape select, as a view where possible."""
    _check(tensor, tuple(map(_size, regions)), "is read through", regions)
    for dim, region in enumerate(regions):
        tensor = _take(tensor, dim, region)
    return tensor


def put(target: torch.Tensor, regions: Regions, piece: torch.Tensor) -> None:
    """Write a tensor into the part of another one that regions of its shape select."""
    _check(target, tuple(map(_size, regions)), "is written through", regions)
    _check(piece, tuple(int(region_length(region)) for region in regions), "fills", regions)
    _put(target, regions, piece)


def _number(part: Span | Join, sizes: Mapping[str, int]) -> Span | Join:
    if isinstance(part, Join):
        return Join(tuple(tuple(_number(p, sizes) for p in inner) for inner in part.parts))
    return Span(*(evaluate(end, sizes) for end in (part.size, part.start, part.stop)))


def _take(tensor: torch.Tensor, dim: int, region: Region) -> torch.Tensor:
    if not region:
        return tensor
    if len(region) > 1:
        tensor = torch.unflatten(tensor, dim, [_size((part,)) for part in region])
        for place, part in enumerate(region):
            tensor = _take(tensor, dim + place, (part,))
        return tensor.flatten(dim, dim + len(region) - 1)
    (part,) = region
    if isinstance(part, Span):
        start, stop = int(part.start), int(part.stop)
        return tensor if part.whole else tensor.narrow(dim, start, stop - start)
    pieces = torch.split(tensor, [_size(inner) for inner in part.parts], dim)
    taken = (_take(piece, dim, inner) for piece, inner in zip(pieces, part.parts, strict=True))
    return torch.cat(tuple(taken), dim)


def _put(target: torch.Tensor, regions: Regions, piece: torch.Tensor) -> None:
    for dim, region in enumerate(regions):
        if not region:
            continue
        if len(region) > 1:
            target = torch.unflatten(target, dim, [_size((part,)) for part in region])
            piece = torch.unflatten(piece, dim, [int(region_length((part,))) for part in region])
            split = tuple((part,) for part in region)
            return _put(target, (*regions[:dim], *split, *regions[dim + 1 :]), piece)
        (part,) = region
        if isinstance(part, Join):
            return _put_parts(target, regions, piece, dim, part)
        start, stop = int(part.start), int(part.stop)
        target = target.narrow(dim, start, stop - start)
        whole = Span(stop - start, 0, stop - start)
        regions = (*regions[:dim], (whole,), *regions[dim + 1 :])
    target.copy_(piece)
    return None


def _put_parts(
    target: torch.Tensor, regions: Regions, piece: torch.Tensor, dim: int, join: Join
) -> None:
    """Write the segments of a concatenated dim one after the other."""
    targets = torch.split(target, [_size(inner) for inner in join.parts], dim)
    pieces = torch.split(piece, [int(region_length(inner)) for inner in join.parts], dim)
    for segment, inner, part in zip(targets, join.parts, pieces, strict=True):
        _put(segment, (*regions[:dim], inner, *regions[dim + 1 :]), part)


def _size(region: Region) -> int:
    return int(region_size(region))


def _check(tensor: torch.Tensor, shape: tuple[int, ...], action: str, regions: Regions) -> None:
    if tuple(tensor.shape) != shape:
        raise ParframeError(
            "run",
            "region",
            f"a tensor of shape {list(tensor.shape)} {action} a region of {list(shape)}",
            "partition the model again",
        )
    for region in regions:
        _check_bounds(region)


def _check_bounds(region: Region) -> None:
    for part in region:
        if isinstance(part, Join):
            for inner in part.parts:
                _check_bounds(inner)
        elif not 0 <= part.start <= part.stop <= part.size:
            raise ParframeError(
                "run",
                "region",
                f"{part.start} to {part.stop} is not within 0 to {part.size}",
                "partition the model again",
            )

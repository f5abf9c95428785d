"""Taking a region out of a tensor and putting one into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from parframe.errors import ParframeError
from parframe.layout import Join, Region, Span, compact, region_length, region_size
from parframe.sizes import evaluate

Regions = tuple[Region, ...]
"""A region for every axis of a tensor, all of numbers."""


def numbers(regions: Sequence[Region], sizes: Mapping[str, int]) -> Regions:
    """The regions with numbers for their symbols.

    Raises
    ------
    ParframeError
        Of kind ``run``, if a symbol has no value.
    """
    try:
        return tuple(compact(tuple(_number(part, sizes) for part in axis)) for axis in regions)
    except KeyError as error:
        raise ParframeError(
            "run",
            "region",
            f"it depends on {error.args[0]!r}, which has no value",
            "check the plan with parframe.check",
        ) from error


def take(tensor: torch.Tensor, regions: Regions) -> torch.Tensor:
    """The part of a tensor that lies in the regions; a view where it can be one.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the regions are not those of a tensor of this shape.
    """
    _check(tensor, tuple(map(_size, regions)), "is taken from", regions)
    for axis, region in enumerate(regions):
        tensor = _take(tensor, axis, region)
    return tensor


def put(target: torch.Tensor, regions: Regions, piece: torch.Tensor) -> None:
    """Write a piece into the regions of a tensor.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the regions fit neither the tensor nor the piece.
    """
    _check(target, tuple(map(_size, regions)), "is put into", regions)
    _check(piece, tuple(int(region_length(region)) for region in regions), "fills", regions)
    _put(target, regions, piece)


def _number(part: Span | Join, sizes: Mapping[str, int]) -> Span | Join:
    if isinstance(part, Join):
        return Join(tuple(tuple(_number(p, sizes) for p in inner) for inner in part.parts))
    return Span(*(evaluate(end, sizes) for end in (part.size, part.start, part.stop)))


def _take(tensor: torch.Tensor, axis: int, region: Region) -> torch.Tensor:
    if not region:
        return tensor
    if len(region) > 1:
        tensor = torch.unflatten(tensor, axis, [_size((part,)) for part in region])
        for place, part in enumerate(region):
            tensor = _take(tensor, axis + place, (part,))
        return tensor.flatten(axis, axis + len(region) - 1)
    (part,) = region
    if isinstance(part, Span):
        start, stop = int(part.start), int(part.stop)
        return tensor if part.whole else tensor.narrow(axis, start, stop - start)
    pieces = torch.split(tensor, [_size(inner) for inner in part.parts], axis)
    taken = (_take(piece, axis, inner) for piece, inner in zip(pieces, part.parts, strict=True))
    return torch.cat(tuple(taken), axis)


def _put(target: torch.Tensor, regions: Regions, piece: torch.Tensor) -> None:
    for axis, region in enumerate(regions):
        if not region:
            continue
        if len(region) > 1:
            target = torch.unflatten(target, axis, [_size((part,)) for part in region])
            piece = torch.unflatten(piece, axis, [int(region_length((part,))) for part in region])
            split = tuple((part,) for part in region)
            return _put(target, (*regions[:axis], *split, *regions[axis + 1 :]), piece)
        (part,) = region
        if isinstance(part, Join):
            return _put_parts(target, regions, piece, axis, part)
        start, stop = int(part.start), int(part.stop)
        target = target.narrow(axis, start, stop - start)
        whole = Span(stop - start, 0, stop - start)
        regions = (*regions[:axis], (whole,), *regions[axis + 1 :])
    target.copy_(piece)
    return None


def _put_parts(
    target: torch.Tensor, regions: Regions, piece: torch.Tensor, axis: int, join: Join
) -> None:
    """Write the pieces of a concatenated axis one after the other."""
    targets = torch.split(target, [_size(inner) for inner in join.parts], axis)
    pieces = torch.split(piece, [int(region_length(inner)) for inner in join.parts], axis)
    for onto, inner, own in zip(targets, join.parts, pieces, strict=True):
        _put(onto, (*regions[:axis], inner, *regions[axis + 1 :]), own)


def _size(region: Region) -> int:
    return int(region_size(region))


def _check(tensor: torch.Tensor, shape: tuple[int, ...], what: str, regions: Regions) -> None:
    if tuple(tensor.shape) != shape:
        raise ParframeError(
            "run",
            "region",
            f"a tensor of shape {list(tensor.shape)} {what} a region of {list(shape)}",
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

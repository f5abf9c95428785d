"""Types of gathers, scatters and all-to-alls, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import attrs

from parframe.checking.concrete_types import (
    ConcreteRange,
    ConcreteRegions,
    ConcreteType,
    evaluate_dim,
    evaluate_pieces,
    locate_ranges,
)
from parframe.checking.reductions import (
    CollectiveResult,
    concrete_hull,
    describe_difference,
    tiling_fault,
)
from parframe.checking.samples import SAMPLE_COUNT, SampledSize, sample_size
from parframe.checking.shard_regions import region_ranges
from parframe.checking.tensor_types import sizes_of
from parframe.layout import Leaf, TensorDim, region_length

ConcreteRanges: TypeAlias = tuple[tuple[tuple[str, ConcreteRange], ...], ...]
SampledSymbols: TypeAlias = tuple[tuple[str, SampledSize], ...]


@lru_cache(maxsize=50_000)
def gather_types(
    rank_types: tuple[ConcreteType, ...],
    parts: tuple[ConcreteRegions, ...],
    symbols: SampledSymbols,
) -> CollectiveResult:
    """Return the type of the ranks' parts, gathered as ``parts`` says."""
    first = rank_types[0]
    fault = describe_difference(rank_types, ("partial",))
    if fault:
        return CollectiveResult(first, fault)
    result, fault = _unite(first, [rank_type.ranges for rank_type in rank_types], symbols)
    outcome = attrs.evolve(first, ranges=result)
    if not fault:
        for number, (rank_type, stated) in enumerate(zip(rank_types, parts, strict=True)):
            if not _agree(
                locate_ranges(first.tensor_dims, rank_type.ranges, result, dict(symbols)), stated
            ):
                fault = f"the part of rank {number} of the group is put in another place"
                break
    return CollectiveResult(outcome, fault)


@lru_cache(maxsize=50_000)
def unite_types(
    rank_types: tuple[ConcreteType, ...], dims: frozenset[str], symbols: SampledSymbols
) -> CollectiveResult:
    """Return the type of the ranks' parts, gathered along some dimensions.

    Every element must be on one rank only; all other dimensions must have the same ranges.
    """
    first = rank_types[0]
    fault = describe_difference(rank_types, ("partial",))
    if fault:
        return CollectiveResult(first, fault)
    other_ranges = {
        tuple(tuple(piece for piece in own if piece[0] not in dims) for own in rank_type.ranges)
        for rank_type in rank_types
    }
    if len(other_ranges) > 1:
        names = ", ".join(sorted(dims))
        return CollectiveResult(
            first, f"the ranks' parts of {first.label} differ in other dimensions than {names}"
        )
    result, fault = _unite(
        first, [rank_type.ranges for rank_type in rank_types], symbols, once=True
    )
    return CollectiveResult(attrs.evolve(first, ranges=result), fault)


def _agree(expected: ConcreteRegions, stated: ConcreteRegions) -> bool:
    """Return whether two regions are equal at every sample; all empty regions are equal."""
    return all(
        len(mine) == len(theirs)
        and (
            mine == theirs
            or (
                any(region_length(region) == 0 for region in mine)
                and any(region_length(region) == 0 for region in theirs)
            )
        )
        for mine, theirs in zip(expected, stated, strict=True)
    )


@lru_cache(maxsize=50_000)
def scatter_type(
    whole: ConcreteType, part: ConcreteRegions, symbols: SampledSymbols
) -> CollectiveResult:
    """Return the type of a part of a tensor."""
    found = _selected_ranges(whole, part, symbols)
    if found is None:
        return CollectiveResult(whole, f"a part of {whole.label} crosses its dimensions")
    return CollectiveResult(attrs.evolve(whole, ranges=found))


def _selected_ranges(
    whole: ConcreteType, part: ConcreteRegions, symbols: SampledSymbols
) -> ConcreteRanges | None:
    """Return the ranges that a region of a tensor selects; None if it crosses dimensions."""
    bindings = dict(symbols)
    result = []
    for number, tensor_dim in enumerate(whole.tensor_dims):
        frame = whole.ranges[number]
        found = []
        for sample in range(SAMPLE_COUNT):
            if len(part[sample]) != len(whole.tensor_dims):
                return None
            pieces = region_ranges(
                evaluate_dim(tensor_dim, bindings, sample),
                part[sample][number],
                evaluate_pieces(frame, sample),
            )
            if pieces is None:
                return None
            found.append(pieces)
        sizes = dict(_dims(tensor_dim, bindings))
        outer = dict(frame)
        own: list[tuple[str, ConcreteRange]] = []
        for dim in sorted({dim for pieces in found for dim in pieces}):
            ends = [
                (int(pieces[dim].start), int(pieces[dim].stop))
                if dim in pieces
                else (0, sizes[dim][sample])
                for sample, pieces in enumerate(found)
            ]
            piece = (tuple(start for start, _ in ends), tuple(stop for _, stop in ends))
            if not _inside(piece, outer.get(dim, ((0,) * SAMPLE_COUNT, sizes[dim]))):
                return None
            if piece != ((0,) * SAMPLE_COUNT, sizes[dim]):
                own.append((dim, piece))
        result.append(tuple(own))
    return tuple(result)


def _inside(piece: ConcreteRange, outer: ConcreteRange) -> bool:
    return all(
        start >= stop or (low <= start and stop <= high)
        for start, stop, low, high in zip(*piece, *outer, strict=True)
    )


@lru_cache(maxsize=20_000)
def all_to_all_types(
    rank_types: tuple[ConcreteType, ...],
    sends: tuple[ConcreteRegions, ...],
    parts: tuple[ConcreteRegions, ...],
    symbols: SampledSymbols,
) -> CollectiveResult:
    """Return the type of what one rank receives in an all-to-all.

    ``sends`` has each rank's part for this rank; ``parts`` where the parts lie in the result.
    """
    first = rank_types[0]
    received = []
    for rank_type, part in zip(rank_types, sends, strict=True):
        ranges = _selected_ranges(rank_type, part, symbols)
        if ranges is None:
            return CollectiveResult(first, f"a part of {first.label} crosses its dimensions")
        received.append(attrs.evolve(rank_type, ranges=ranges))
    return gather_types(tuple(received), parts, symbols)


def _unite(
    like: ConcreteType, parts: Sequence[ConcreteRanges], symbols: SampledSymbols, once: bool = False
) -> tuple[ConcreteRanges, str]:
    """Return the hull of parts of a tensor, and the fault.

    The fault is a gap, or an overlap if ``once``.
    """
    bindings = dict(symbols)
    sizes = [dict(_dims(tensor_dim, bindings)) for tensor_dim in like.tensor_dims]
    keys = sorted({(i, dim) for ranges in parts for i, own in enumerate(ranges) for dim, _ in own})
    boxes = [
        [dict(ranges[i]).get(dim, ((0,) * SAMPLE_COUNT, sizes[i][dim])) for i, dim in keys]
        for ranges in parts
    ]
    fault = ""
    for path in dimension_paths(like.tensor_dims):
        chosen = [i for i, key in enumerate(keys) if key in path]
        if once and not chosen and len(parts) > 1:
            fault = fault or f"every rank has all of {like.label}"
        for sample in range(SAMPLE_COUNT):
            here = tuple(
                tuple((box[i][0][sample], box[i][1][sample]) for i in chosen) for box in boxes
            )
            if chosen and (wrong := tiling_fault(here, once)):
                names = ", ".join(keys[i][1] for i in chosen)
                fault = fault or f"the ranks' parts of {names} {wrong}"
    hulls = {key: concrete_hull([[box[i]] for box in boxes])[0] for i, key in enumerate(keys)}
    return tuple(
        tuple(
            (dim, hulls[position, dim])
            for i, dim in keys
            if i == position and hulls[i, dim] != ((0,) * SAMPLE_COUNT, sizes[i][dim])
        )
        for position in range(len(like.tensor_dims))
    ), fault


def _dims(
    tensor_dim: TensorDim, bindings: Mapping[str, SampledSize]
) -> Iterator[tuple[str, SampledSize]]:
    for dim, size in sizes_of(tensor_dim).items():
        yield dim, sample_size(size, bindings)


@lru_cache(maxsize=10_000)
def dimension_paths(tensor_dims: tuple[TensorDim, ...]) -> tuple[frozenset[tuple[int, str]], ...]:
    """Return the dimensions that index an element, for each choice of segments."""
    choices = [
        [frozenset((number, dim) for dim in dims) for dims in _paths_of_dim(tensor_dim)]
        for number, tensor_dim in enumerate(tensor_dims)
    ]
    return tuple(dict.fromkeys(frozenset().union(*chosen) for chosen in product(*choices)))


def _paths_of_dim(tensor_dim: TensorDim) -> list[frozenset[str]]:
    result: list[frozenset[str]] = [frozenset()]
    for factor in tensor_dim:
        more = (
            [frozenset({factor.dim})]
            if isinstance(factor, Leaf)
            else [path for part in factor.parts for path in _paths_of_dim(part)]
        )
        result = [path | other for path in result for other in more]
    return result


def coverage_fault(
    like: ConcreteType, parts: Sequence[ConcreteRanges], symbols: SampledSymbols
) -> str:
    """Return why parts of a tensor are not all of it, or ``""``."""
    united, fault = _unite(like, parts, symbols)
    if fault:
        return fault
    missing = [dim for own in united for dim, _ in own]
    return f"no device has all of {', '.join(missing)}" if missing else ""

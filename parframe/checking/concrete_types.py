"""Types of one device's tensors in numbers: the symbols replaced by the device's sample values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

import attrs

from parframe.checking.samples import SAMPLE_COUNT, Bindings, SampledSize, sample_size, symbol_names
from parframe.checking.tensor_types import TensorType, sizes_of, sum_ids
from parframe.layout import (
    Join,
    Leaf,
    Pieces,
    Range,
    Region,
    Segments,
    Span,
    TensorDim,
    compact_region,
    region_of,
)
from parframe.sizes import Size

ConcreteRange: TypeAlias = tuple[SampledSize, SampledSize]
"""Start and stop of a range, at every sample."""

ConcreteContractedRange: TypeAlias = tuple[tuple[str, str, SampledSize], ConcreteRange]
"""Source, dimension and size of a contraction, and the range that a device summed over."""

ConcreteRegions: TypeAlias = tuple[tuple[Region, ...], ...]
"""Regions of a tensor's dims, for every sample."""


@attrs.frozen
class ConcreteTerm:
    """Partial term in numbers; see ``PartialTerm``."""

    term: int
    label: str
    reduction: str
    contributions: frozenset[tuple[ConcreteContractedRange, ...]]


@attrs.frozen
class ConcreteType:
    """Type of one device's tensor in numbers; see ``TensorType``."""

    tensor_dims: tuple[TensorDim, ...]
    ranges: tuple[tuple[tuple[str, ConcreteRange], ...], ...]
    complete_id: int
    partial_terms: tuple[ConcreteTerm, ...]
    label: str

    @property
    def sum_id(self) -> int:
        """Number that identifies the sum of all terms."""
        return sum_ids(self.complete_id, *(term.term for term in self.partial_terms))

    def range(self, position: int, dim: str) -> ConcreteRange | None:
        """Return the range of a dimension; None where it is whole."""
        return dict(self.ranges[position]).get(dim)


def _range_names(piece: Range) -> Iterable[str]:
    return (*symbol_names(piece.start), *symbol_names(piece.stop))


@lru_cache(maxsize=50_000)
def symbols_in(tensor_type: TensorType) -> tuple[str, ...]:
    """Return the symbols that a type depends on."""
    names = {
        name
        for ranges in tensor_type.shard.ranges
        for _, piece in ranges
        for name in _range_names(piece)
    }
    for ranges, tensor_dim in zip(
        tensor_type.shard.ranges, tensor_type.shard.tensor_dims, strict=True
    ):
        for dim, _ in ranges:
            names.update(symbol_names(sizes_of(tensor_dim)[dim]))
    for term in tensor_type.partial_terms:
        for contribution in term.contributions:
            for share in contribution:
                names.update((*_range_names(share.range), *symbol_names(share.size)))
    return tuple(sorted(names))


def to_concrete(tensor_type: TensorType, bindings: Bindings) -> ConcreteType:
    """Return a type in numbers, for a device with these bindings."""
    return _to_concrete(
        tensor_type, tuple((name, bindings[name]) for name in symbols_in(tensor_type))
    )


@lru_cache(maxsize=100_000)
def _to_concrete(
    tensor_type: TensorType, values: tuple[tuple[str, SampledSize], ...]
) -> ConcreteType:
    bindings = dict(values)
    ranges = tuple(
        tuple(
            (dim, measured)
            for dim, piece in found
            if (measured := evaluate_range(piece, bindings))
            != ((0,) * SAMPLE_COUNT, sample_size(sizes_of(tensor_dim)[dim], bindings))
        )
        for tensor_dim, found in zip(
            tensor_type.shard.tensor_dims, tensor_type.shard.ranges, strict=True
        )
    )
    return ConcreteType(
        tensor_type.shard.tensor_dims,
        ranges,
        tensor_type.complete_id,
        tuple(
            ConcreteTerm(
                term.term,
                term.label,
                term.reduction,
                frozenset(
                    tuple(
                        (
                            (share.source, share.dim, sample_size(share.size, bindings)),
                            evaluate_range(share.range, bindings),
                        )
                        for share in contribution
                    )
                    for contribution in term.contributions
                ),
            )
            for term in tensor_type.partial_terms
        ),
        tensor_type.label,
    )


def evaluate_range(piece: Range, bindings: Bindings) -> ConcreteRange:
    """Return a range at every sample."""
    return sample_size(piece.start, bindings), sample_size(piece.stop, bindings)


class RegionEvaluator:
    """Evaluates the parts of collectives; the same object on many ranks is evaluated once."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, ...]] = {}
        self._known: dict[tuple[int, tuple[SampledSize, ...]], tuple[ConcreteRegions, ...]] = {}
        self._kept: list[object] = []  # so that no other object gets its id

    def __call__(
        self, parts: tuple[tuple[Region, ...], ...], bindings: Bindings
    ) -> tuple[ConcreteRegions, ...]:
        """Return the regions of every part at every sample."""
        if id(parts) not in self._names:
            names = {name for part in parts for region in part for name in region_symbols(region)}
            self._names[id(parts)] = tuple(sorted(names))
            self._kept.append(parts)
        key = id(parts), tuple(bindings[name] for name in self._names[id(parts)])
        if key not in self._known:
            self._known[key] = tuple(_evaluate_part(part, bindings) for part in parts)
        return self._known[key]


def _evaluate_part(regions: tuple[Region, ...], bindings: Bindings) -> ConcreteRegions:
    """Return the regions of a tensor's dims at every sample, with as few factors as possible."""
    names = sorted({name for region in regions for name in region_symbols(region)})
    return _evaluate_regions(regions, tuple((name, bindings[name]) for name in names))


@lru_cache(maxsize=50_000)
def _evaluate_regions(
    regions: tuple[Region, ...], values: tuple[tuple[str, SampledSize], ...]
) -> ConcreteRegions:
    bindings = dict(values)
    return tuple(
        tuple(_evaluate_region(parts, bindings, sample) for parts in regions)
        for sample in range(SAMPLE_COUNT)
    )


@lru_cache(maxsize=50_000)
def region_symbols(parts: Region) -> tuple[str, ...]:
    """Return the symbols of a region, sorted."""
    names: set[str] = set()
    for part in parts:
        if isinstance(part, Join):
            names.update(name for inner in part.parts for name in region_symbols(inner))
        else:
            for size in (part.size, part.start, part.stop):
                names.update(symbol_names(size))
    return tuple(sorted(names))


def _evaluate_region(parts: Region, bindings: Bindings, sample: int) -> Region:
    def at(size: Size) -> int:
        return sample_size(size, bindings)[sample]

    return compact_region(
        tuple(
            Join(tuple(_evaluate_region(inner, bindings, sample) for inner in part.parts))
            if isinstance(part, Join)
            else Span(at(part.size), at(part.start), at(part.stop))
            for part in parts
        )
    )


def locate_ranges(
    tensor_dims: tuple[TensorDim, ...],
    ranges: tuple[tuple[tuple[str, ConcreteRange], ...], ...],
    frame: tuple[tuple[tuple[str, ConcreteRange], ...], ...],
    symbols: Bindings,
) -> ConcreteRegions:
    """Return where ranges lie in a tensor that has a frame of them, at every sample."""
    return tuple(
        tuple(
            region_of(
                evaluate_dim(tensor_dim, symbols, sample),
                evaluate_pieces(own, sample),
                evaluate_pieces(outer, sample),
            )
            for tensor_dim, own, outer in zip(tensor_dims, ranges, frame, strict=True)
        )
        for sample in range(SAMPLE_COUNT)
    )


def evaluate_dim(tensor_dim: TensorDim, symbols: Bindings, sample: int) -> TensorDim:
    """Return the factors of a tensor dim with the sizes at one sample."""
    return tuple(
        Leaf(factor.dim, sample_size(factor.size, symbols)[sample])
        if isinstance(factor, Leaf)
        else Segments(tuple(evaluate_dim(part, symbols, sample) for part in factor.parts))
        for factor in tensor_dim
    )


def evaluate_pieces(ranges: Iterable[tuple[str, ConcreteRange]], sample: int) -> Pieces:
    """Return ranges as pieces at one sample."""
    return {dim: Range(start[sample], stop[sample]) for dim, (start, stop) in ranges}

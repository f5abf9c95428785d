"""Types of a device's tensors: the part of a model's tensor, and the sum of terms that it is.

The checks write every value of the model as a sum of *terms*. A tensor of a device has complete
terms, known by one number (the sum of their ids), and partial terms, of which other devices have
further contributions. Two tensors have the same value if their terms are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TypeAlias

import attrs

from parframe.layout import Leaf, Pieces, Range, TensorDim, local_size
from parframe.sizes import Size

Ranges: TypeAlias = tuple[tuple[str, Range], ...]
"""Ranges of the split dimensions of one tensor dim, sorted by name."""

_MODULUS = 1 << 127


@lru_cache(maxsize=200_000)
def term_id(name: str) -> int:
    """Return the number that identifies a term of a sum."""
    return int.from_bytes(blake2b(name.encode(), digest_size=15).digest(), "big")


def sum_ids(*marks: int) -> int:
    """Return the number that identifies a sum of terms."""
    return sum(marks) % _MODULUS


@attrs.frozen(eq=False)
class TensorShard:
    """Part of a tensor: the factors of its dims, and the ranges of those that are split.

    Only ``make_shard`` makes shards, so that equal ones are the same object.
    """

    tensor_dims: tuple[TensorDim, ...]
    ranges: tuple[Ranges, ...]

    def pieces(self, position: int) -> Pieces:
        """Return the ranges along one tensor dim."""
        return dict(self.ranges[position])

    @cached_property
    def shape(self) -> tuple[Size, ...]:
        """Shape of the device's tensor."""
        return tuple(
            local_size(tensor_dim, dict(ranges))
            for tensor_dim, ranges in zip(self.tensor_dims, self.ranges, strict=True)
        )

    @property
    def is_whole(self) -> bool:
        """True if the shard is all of the tensor."""
        return not any(self.ranges)


_shards: dict[tuple[tuple[TensorDim, ...], tuple[Ranges, ...]], TensorShard] = {}


def make_shard(tensor_dims: tuple[TensorDim, ...], pieces: Iterable[Pieces]) -> TensorShard:
    """Return the part of a tensor with these pieces of each of its dims."""
    ranges = tuple(
        tuple(
            (dim, pieces_of_dim[dim])
            for dim, size in sorted(sizes_of(tensor_dim).items())
            if dim in pieces_of_dim and not _is_whole(pieces_of_dim[dim], size)
        )
        for tensor_dim, pieces_of_dim in zip(tensor_dims, pieces, strict=True)
    )
    key = (tensor_dims, ranges)
    if key not in _shards:
        if len(_shards) > 200_000:
            _shards.clear()
        _shards[key] = TensorShard(tensor_dims, ranges)
    return _shards[key]


def _is_whole(piece: Range, size: Size) -> bool:
    return piece.start == 0 and bool(piece.stop == size)


@lru_cache(maxsize=50_000)
def sizes_of(tensor_dim: TensorDim) -> Mapping[str, Size]:
    """Return the size of every dimension in a tensor dim."""
    sizes: dict[str, Size] = {}
    for factor in tensor_dim:
        if isinstance(factor, Leaf):
            sizes[factor.dim] = factor.size
        else:
            for part in factor.parts:
                sizes.update(sizes_of(part))
    return sizes


@attrs.frozen
class ContractedRange:
    """Range of a contracted dimension that a contribution was summed over.

    ``source`` names the contraction; ranges of one dimension in two contractions are different.
    """

    source: str
    dim: str
    size: Size
    range: Range


Contribution: TypeAlias = tuple[ContractedRange, ...]
"""Product of contracted ranges, sorted. The products of all devices must tile the whole."""


@attrs.frozen
class PartialTerm:
    """Term of which devices have contributions that are still to be reduced.

    It is complete when the devices' contributions together cover every contracted dimension.
    """

    term: int
    label: str
    reduction: str
    contributions: frozenset[Contribution]


@attrs.frozen
class TensorType:
    """Type of a device's tensor: the sum of complete and partial terms, and the part of it.

    - ``shard``: the part of the model's tensor.
    - ``complete_id``: the number that identifies the sum of the complete terms.
    - ``partial_terms``: the terms that are still to be reduced.
    - ``label``: the model's name of the value, for messages.
    """

    shard: TensorShard
    complete_id: int
    partial_terms: tuple[PartialTerm, ...] = ()
    label: str = ""

    @property
    def sum_id(self) -> int:
        """Number that identifies the sum of all terms, once they are complete."""
        return sum_ids(self.complete_id, *(term.term for term in self.partial_terms))


def merge_partial_terms(
    left: tuple[PartialTerm, ...], right: tuple[PartialTerm, ...]
) -> tuple[PartialTerm, ...]:
    """Return the partial terms of a sum, in a fixed order."""
    return tuple(sorted((*left, *right), key=lambda term: (term.term, term.label)))

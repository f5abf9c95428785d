"""Dimensions as two halves, so that a device may have a part of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from parframe.dims import Dimension, Dimensions
from parframe.layout import Leaf, Segments, TensorDim
from parframe.sizes import Size, floordiv, simplify


def halve_dimensions(dimensions: Dimensions, names: Iterable[str]) -> Dimensions:
    """Return the naming in which each dimension of some names is two, one behind the other.

    All else is the same. A tensor dim of ``sequence`` becomes one of the segments
    ``sequence.front`` and ``sequence.back``; the first is longer by one where the size is odd.

    - ``names``: Roles or single dimensions; a dimension that is split together with others stays
      whole.
    """
    chains = [chain for chains in dimensions.chains.values() for chain in chains]
    together = {dim for chain in chains if len(chain) > 1 for dim in chain}
    wanted = {dim for name in names for chain in dimensions.targets(name) for dim in chain}
    found = {dim: _halves(dimensions, dim) for dim in sorted(wanted - together)}
    if not found:
        return dimensions
    segments = {
        dim: Segments(tuple((Leaf(half.name, half.size),) for half in pair))
        for dim, pair in found.items()
    }
    pairs = {dim: tuple(half.name for half in pair) for dim, pair in found.items()}
    return attrs.evolve(
        dimensions,
        dimensions={
            **dimensions.dimensions,
            **{half.name: half for pair in found.values() for half in pair},
        },
        chains={
            name: tuple(pairs.get(chain[0], chain) for chain in chains)
            for name, chains in dimensions.chains.items()
        },
        tensor_dims={
            block: {value: tuple(_with_halves(tensor_dim, segments) for tensor_dim in tensor_dims)
                    for value, tensor_dims in values.items()}
            for block, values in dimensions.tensor_dims.items()
        },
        bound={
            block: {
                operator: attrs.evolve(
                    bound,
                    labels={
                        label: None if tensor_dim is None else _with_halves(tensor_dim, segments)
                        for label, tensor_dim in bound.labels.items()
                    },
                )
                for operator, bound in operators.items()
            }
            for block, operators in dimensions.bound.items()
        },
        halves=frozenset(pairs.values()),
    )  # fmt: skip


def _halves(dimensions: Dimensions, dim: str) -> tuple[Dimension, Dimension]:
    whole = dimensions.dimensions[dim]
    back: Size = floordiv(whole.size, 2)
    return (
        Dimension(f"{dim}.front", whole.role, simplify(whole.size - back)),
        Dimension(f"{dim}.back", whole.role, back),
    )


def _with_halves(tensor_dim: TensorDim, segments: Mapping[str, Segments]) -> TensorDim:
    """Return a tensor dim with the halves in place of their whole."""
    return tuple(
        segments.get(factor.dim, factor)
        if isinstance(factor, Leaf)
        else Segments(tuple(_with_halves(part, segments) for part in factor.parts))
        for factor in tensor_dim
    )

"""Named dimensions of a graph: the result of naming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs

from parframe.graph import Block, Call, OperatorGraph
from parframe.layout import Leaf, TensorDim, leaves
from parframe.rules import Rule, Signature, Site
from parframe.sizes import Size


@attrs.frozen
class Dimension:
    """Named dimension: its name, its role in the model (may be empty) and its size."""

    name: str
    role: str
    size: Size


@attrs.frozen
class BoundOperator:
    """Operator with the rule that applies to it.

    - ``site``: the operator and its tensors.
    - ``rule``: the rule of the operator, if there is one.
    - ``signature``: the rule's notation for this operator's shapes; None where no rule covers the
      operator.
    - ``labels``: the dimensions of every label. None where the occurrences of a label have
      different factors; such a label cannot be split.
    """

    site: Site
    rule: Rule | None
    signature: Signature | None
    labels: Mapping[str, TensorDim | None]

    @cached_property
    def split_cache(self) -> dict[Any, Any]:
        """Cache of the ways to split the operator."""
        return {}


@attrs.frozen
class Dimensions:
    """Named dimensions of a graph.

    - ``chains``: for every role, its chains of dimensions. A chain is one dimension, or several
      that are split one after the other (``kv_heads``, then ``group``).
    - ``tensor_dims``: for every block and value, its tensor dims as factors.
    - ``bound``: for every block and operator, its rule and labels.
    - ``inconsistent_blocks``: the blocks whose calls need different names, because the same tensor
      dim has other factors in another call.
    - ``halves``: the chains that are the two halves of one dimension; see ``parframe.dims.halves``.
    """

    dimensions: Mapping[str, Dimension]
    chains: Mapping[str, tuple[tuple[str, ...], ...]]
    tensor_dims: Mapping[str, Mapping[str, tuple[TensorDim, ...]]]
    bound: Mapping[str, Mapping[str, BoundOperator]]
    graph: OperatorGraph = attrs.field(repr=False, eq=False)
    inconsistent_blocks: frozenset[str] = frozenset()
    halves: frozenset[tuple[str, ...]] = frozenset()

    @cached_property
    def outer(self) -> dict[str, tuple[TensorDim, ...]]:
        """Tensor dims of the graph's inputs, parameters and values between calls, as factors."""
        found: dict[str, tuple[TensorDim, ...]] = {}
        for call in self.graph.calls:
            block = self.graph.blocks[call.block]
            tensor_dims = self.tensor_dims[block.name]
            for own, name in interface(block, call):
                found.setdefault(name, tensor_dims[own])
        for name, tensor in {**self.graph.inputs, **self.graph.parameters}.items():
            found.setdefault(
                name, tuple((Leaf(f"{name}.{i}", size),) for i, size in enumerate(tensor.shape))
            )
        return found

    @cached_property
    def input_dims(self) -> frozenset[str]:
        """Dimensions of the model's inputs; outputs may stay split along these."""
        return frozenset(
            leaf.dim
            for name in self.graph.inputs
            for tensor_dim in self.outer[name]
            for leaf in leaves(tensor_dim)
        )

    def targets(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Return the chains of a role or of a dimension's name; empty if nothing has the name."""
        if name in self.chains:
            return self.chains[name]
        return ((name,),) if name in self.dimensions else ()


def interface(block: Block, call: Call) -> Iterator[tuple[str, str]]:
    """Yield each value that a block takes or gives, with the name that a call has for it."""
    yield from zip(block.inputs, call.inputs, strict=True)
    yield from zip(block.parameters, call.parameters, strict=True)
    yield from zip(block.outputs, call.outputs, strict=True)

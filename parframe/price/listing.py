"""What one device does in one stage, as an operator list with counts, and what each operator is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from parframe.graph import Operator, Parameter, Tensor
from parframe.plan import COMMUNICATION
from parframe.price.extents import Extent, Extents
from parframe.rules.table import EXCHANGES

Kind = Literal["free", "view", "product", "attention", "experts", "lookup", "exchange", "pointwise"]

VIEWS = frozenset(
    {"parframe.shard"}
    | {
        f"aten.{name}"
        for name in (
            "view.default", "reshape.default", "permute.default", "transpose.int", "t.default",
            "numpy_T.default", "unsqueeze.default", "squeeze.default", "squeeze.dim",
            "squeeze.dims", "expand.default", "slice.Tensor", "select.int", "alias.default",
            "detach.default", "flatten.using_ints", "unflatten.int", "unbind.int", "split.Tensor",
            "split.sizes", "split_with_sizes.default", "chunk.default", "contiguous.default",
        )
    }
)  # fmt: skip
"""Operators that name a part or another order of what is there."""

PRODUCTS: Mapping[str, tuple[str, str, bool]] = {
    "aten.linear.default": ("input", "weight", True),
    "aten.matmul.default": ("self", "other", False),
    "aten.mm.default": ("self", "mat2", False),
    "aten.addmm.default": ("mat1", "mat2", False),
    "aten.bmm.default": ("self", "mat2", False),
}
"""Products: the arguments that are multiplied, and whether the second has its columns first."""

ATTENTIONS = frozenset(
    {
        "parframe.attention.default",
        "parframe.ring_attention",
        "aten.scaled_dot_product_attention.default",
    }
)

EXPERTS = frozenset(
    {"parframe.experts.default", "parframe.some_experts", "parframe.routed_experts"}
)


@attrs.frozen
class Listing:
    """The operators of one device in one stage.

    Parameters
    ----------
    operators
        In the order of execution.
    counts
        How often each is done: equal layers may be listed once.
    tensors
        Every value with its local shape.
    parameters
        The weights and buffers that are used, as in the model, by their local names.
    outputs
        Values that the model returns.
    sent
        What is sent to other stages: values, kind and the ranks from and to.
    extents
        The sizes on this device.
    members
        The ranks of this device's group over some mesh axes.
    """

    operators: tuple[Operator, ...]
    counts: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, Parameter]
    outputs: frozenset[str]
    sent: tuple[tuple[str, str, tuple[int, ...]], ...]
    extents: Extents
    members: Callable[[tuple[str, ...]], tuple[int, ...]]


class Looked:
    """A listing looked through: what each operator is, and how values hang together."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.operators = listing.operators
        self.maker: dict[str, int] = {}
        self.root: dict[str, str] = {}
        self.weight: dict[str, str] = {name: name for name in listing.parameters}
        self.readers: dict[str, list[int]] = {}
        self.known: dict[str, Extent] = {}
        self.kinds: list[Kind] = []
        for number, operator in enumerate(self.operators):
            self._look(number, operator)

    def extent(self, name: str) -> Extent:
        """The extent of a value."""
        if name not in self.known:
            self.known[name] = self.listing.extents.of(self.listing.tensors[name])
        return self.known[name]

    def at(self, operator: Operator, slot: str) -> str:
        """The first value in an argument of an operator."""
        return operator.inputs[operator.slots.index(slot)]

    def source(self, name: str) -> str:
        """The value of which another is a view, or itself."""
        return self.root.get(name, name)

    def bears(self, name: str) -> bool:
        """Whether a value grows with the batch."""
        return name not in self.listing.parameters and self.extent(name).bears != "nothing"

    def _look(self, number: int, operator: Operator) -> None:
        kind = self._kind(operator)
        self.kinds.append(kind)
        for name in operator.outputs:
            self.maker[name] = number
            if kind == "view":
                self.root[name] = self.source(operator.inputs[0])
            elif kind == "free" and operator.inputs and operator.inputs[0] in self.weight:
                self.weight[name] = self.weight[operator.inputs[0]]
        if kind != "view":
            for name in operator.inputs:
                self.readers.setdefault(self.source(name), []).append(number)

    def _kind(self, operator: Operator) -> Kind:
        target = operator.target
        if target in COMMUNICATION and target not in EXCHANGES:
            moved = [*operator.inputs, *operator.outputs]
            return "exchange" if any(self.bears(name) for name in moved) else "free"
        if not any(self.bears(name) for name in operator.outputs):
            return "free"
        if target in VIEWS:
            return "view"
        if target in ATTENTIONS:
            return "attention"
        if target in EXPERTS:
            return "experts"
        if target == "aten.embedding.default":
            return "lookup"
        if target in PRODUCTS:
            return self._product(operator)
        pairs = any(self.extent(name).bears == "pairs" for name in operator.outputs)
        return "free" if pairs else "pointwise"

    def _product(self, operator: Operator) -> Kind:
        """A product with a weight, or of pairs of positions: a part of an attention."""
        left, right, _ = PRODUCTS[operator.target]
        one, other = self.at(operator, left), self.at(operator, right)
        if not self.bears(other):
            return "product"
        if self.extent(one).bears == "pairs":
            return "attention"
        pairs = self.extent(operator.outputs[0]).bears == "pairs"
        return "free" if pairs else "pointwise"


def axes_of(operator: Operator) -> tuple[str, ...]:
    """The mesh axes that a communication runs over."""
    axes = operator.args.get("axes")
    return tuple(str(axis) for axis in axes) if isinstance(axes, tuple) else ()

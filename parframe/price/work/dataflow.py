"""Kinds of a device's operators, and the flow of values between them, independent of widths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.price.work.operator_list import OperatorList, at
from parframe.price.work.tensor_scaling import Growth
from parframe.rules import kinds
from parframe.rules.communication import COMMUNICATION_OPERATORS
from parframe.rules.table import kind_of

Kind = Literal[
    "free", "view", "product", "attention", "experts", "lookup", "communication", "pointwise"
]


class Flow:
    """Flow of values through an operator list: producers, readers, views and kinds."""

    def __init__(self, listing: OperatorList) -> None:
        self.operators = listing.operators
        self.outputs = listing.outputs
        self.ends = {*listing.outputs, *(value for value, _, _ in listing.sends)}
        self.parameters = frozenset(listing.parameters)
        self.producer: dict[str, int] = {}
        self.root: dict[str, str] = {}
        self.weight: dict[str, str] = {name: name for name in listing.parameters}
        self.readers: dict[str, list[int]] = {}
        self.known: dict[str, Growth] = {}
        self.kinds: list[Kind] = []
        for number, operator in enumerate(self.operators):
            for name in (*operator.inputs, *operator.outputs):
                if name not in self.known:
                    self.known[name] = listing.scaling(name).grows_with
            self._look(number, operator)

    def source(self, name: str) -> str:
        """Return the value of which another is a view, or itself."""
        return self.root.get(name, name)

    def grows(self, name: str) -> bool:
        """Return whether a value grows with the batch."""
        return name not in self.parameters and self.known[name] != "nothing"

    def backward(self, names: Iterable[str]) -> tuple[set[int], set[int], bool]:
        """Return the operators before values back to products, those products, and whether all."""
        seen: set[int] = set()
        products: set[int] = set()
        whole = True
        pending = list(names)
        while pending:
            name = pending.pop()
            number = self.producer.get(name)
            if number is None:
                whole = whole and not self.grows(name)
            elif self.kinds[number] == "product":
                products.add(number)
            elif number not in seen:
                whole = whole and self.kinds[number] not in ("attention", "experts", "lookup")
                seen.add(number)
                pending.extend(self.operators[number].inputs)
        return seen, products, whole

    def _look(self, number: int, operator: Operator) -> None:
        kind = self._kind(operator)
        self.kinds.append(kind)
        for name in operator.outputs:
            self.producer[name] = number
            if kind == "view":
                self.root[name] = self.source(operator.inputs[0])
            elif kind == "free" and operator.inputs and operator.inputs[0] in self.weight:
                self.weight[name] = self.weight[operator.inputs[0]]
        if kind != "view":
            for name in operator.inputs:
                self.readers.setdefault(self.source(name), []).append(number)

    def _kind(self, operator: Operator) -> Kind:
        if operator.target in COMMUNICATION_OPERATORS:
            moved = [*operator.inputs, *operator.outputs]
            return "communication" if any(self.grows(name) for name in moved) else "free"
        if not any(self.grows(name) for name in operator.outputs):
            return "free"
        match kind_of(operator):
            case kinds.View():
                return "view"
            case kinds.Attention():
                return "attention"
            case kinds.Experts():
                return "experts"
            case kinds.Lookup():
                return "lookup"
            case kinds.Product() as product:
                return self._product(operator, product)
        pairs = any(self.known[name] == "pairs" for name in operator.outputs)
        return "free" if pairs else "pointwise"

    def _product(self, operator: Operator, product: kinds.Product) -> Kind:
        """Return the kind of a product: with a weight, or of positions, a part of an attention."""
        one, other = at(operator, product.left), at(operator, product.right)
        if not self.grows(other):
            return "product"
        if self.known[one] == "pairs":
            return "attention"
        pairs = self.known[operator.outputs[0]] == "pairs"
        return "free" if pairs else "pointwise"


def product_of(operator: Operator) -> kinds.Product:
    """Return which arguments a matrix product multiplies.

    Raises
    ------
    ParframeError
        Of kind ``internal``, if it is no matrix product.
    """
    kind = kind_of(operator)
    if not isinstance(kind, kinds.Product):
        raise ParframeError("internal", operator.name, "not a matrix product", "report it")
    return kind

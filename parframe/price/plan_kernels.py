"""Kernels of a device's operator list, merged as serving engines run them.

Products of one input are one kernel (query, key and value; gate and up), and what stands between
two products, attentions or exchanges is one kernel as far as it hangs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TypeVar

import attrs

from parframe.price.fusing import one_kernel
from parframe.price.latent import kept_elements
from parframe.price.listing import PRODUCTS, Looked, axes_of
from parframe.price.work import Attention, Exchange, Experts, Kernel, Per, Pointwise, Product

T = TypeVar("T", bound=Kernel | Exchange)


class Kernels:
    """The kernels and exchanges of a listing, in the order of execution."""

    def __init__(self, looked: Looked) -> None:
        self.looked = looked
        self.operators = looked.operators
        self.kinds = looked.kinds
        self.counts = looked.listing.counts
        self.routers = self._routers()
        self.rows = self._rows()
        self.group_of = one_kernel(looked)
        self.groups: dict[int, list[int]] = {}
        for number, group in sorted(self.group_of.items()):
            self.groups.setdefault(group, []).append(number)

    def per(self, number: int) -> Per:
        """Whether an operator is done for the last position of each row alone."""
        return "row" if number in self.rows else "token"

    def kernels(self) -> tuple[Kernel, ...]:
        """What is computed, equal kernels once with their count."""
        found: list[Kernel] = []
        merged: dict[tuple[object, ...], list[int]] = {}
        for number, kind in enumerate(self.kinds):
            if kind == "product":
                merged.setdefault(self._input_of(number), []).append(number)
        firsts = {numbers[0]: numbers for numbers in merged.values()}
        for number, kind in enumerate(self.kinds):
            if kind == "product" and number in firsts:
                found.append(self._product(firsts[number]))
            elif kind == "attention":
                found.append(self._attention(number))
            elif kind == "experts":
                found.append(self.experts(number))
            elif kind == "lookup":
                extent = self.looked.extent(self.operators[number].outputs[0])
                moved = 2.0 * extent.width
                found.append(Pointwise(moved, extent.share, "token", self.counts[number]))
            elif kind == "pointwise" and self.groups.get(self.group_of[number], [-1])[0] == number:
                found.extend(self._pointwise(self.groups[self.group_of[number]]))
        return tuple(counted(found))

    def _input_of(self, number: int) -> tuple[object, ...]:
        operator = self.operators[number]
        left = self.looked.at(operator, PRODUCTS[operator.target][0])
        table = number in self.routers
        return self.looked.source(left), self.per(number), table, self.counts[number]

    def inner_and_columns(self, number: int) -> tuple[int, int]:
        """The sizes of a product's weight here."""
        operator = self.operators[number]
        _, slot, columns_first = PRODUCTS[operator.target]
        shape = self.looked.listing.tensors[self.looked.at(operator, slot)].shape
        one, other = int(shape[-2]), int(shape[-1])
        return (other, one) if columns_first else (one, other)

    def _product(self, numbers: list[int]) -> Product:
        first = numbers[0]
        sizes = [self.inner_and_columns(number) for number in numbers]
        return Product(
            inner=sizes[0][0],
            columns=sum(columns for _, columns in sizes),
            share=self._share(first),
            per=self.per(first),
            table=first in self.routers or first in self.rows,
            count=self.counts[first],
        )

    def _share(self, number: int) -> float:
        return max(self.looked.extent(name).share for name in self.operators[number].outputs)

    def _attention(self, number: int) -> Attention:
        operator, looked = self.operators[number], self.looked
        tensors, extents = looked.listing.tensors, looked.listing.extents
        if operator.target in PRODUCTS:
            return self._written_out(number)
        key_name, value_name = looked.at(operator, "key"), looked.at(operator, "value")
        query = tensors[looked.at(operator, "query")].shape
        key, value = tensors[key_name].shape, tensors[value_name].shape
        window = operator.args.get("window")
        return Attention(
            heads=int(query[1]),
            kv_heads=int(key[1]),
            key_width=int(key[3]),
            value_width=int(value[3]),
            kept=kept_elements(looked, key_name, value_name),
            window=window if isinstance(window, int) else None,
            share=extents.part(query[0]),
            keys=extents.part(query[2]),
            count=self.counts[number],
        )

    def _written_out(self, number: int) -> Attention:
        """An attention that the model's code writes as products: this is the second of them."""
        operator, looked = self.operators[number], self.looked
        tensors = looked.listing.tensors
        value = looked.at(operator, PRODUCTS[operator.target][1])
        scores = next(
            earlier
            for earlier in reversed(self.operators[:number])
            if earlier.target in PRODUCTS and looked.extent(earlier.outputs[0]).bears == "pairs"
        )
        left = looked.at(scores, PRODUCTS[scores.target][0])
        right = looked.at(scores, PRODUCTS[scores.target][1])
        query, wide = tensors[left].shape, tensors[value].shape
        heads = int(query[-3]) if isinstance(query[-3], int) else 1
        kept = kept_elements(looked, right, value)
        share = looked.extent(operator.outputs[0]).share
        return Attention(
            heads, heads, int(query[-1]), int(wide[-1]), kept,
            share=share, count=self.counts[number],
        )  # fmt: skip

    def experts(self, number: int) -> Experts:
        """The experts that an operator visits."""
        operator, looked = self.operators[number], self.looked
        tensors, parameters = looked.listing.tensors, looked.listing.parameters
        hidden, ids = looked.at(operator, "hidden"), looked.at(operator, "ids")
        up, down = looked.at(operator, "up"), looked.at(operator, "down")
        inner = tensors[down].shape[1 if operator.args.get("transposed") else 2]
        share = looked.extent(hidden).share
        if operator.target == "parframe.routed_experts":
            share *= len(looked.listing.members(axes_of(operator)))
        return Experts(
            held=int(tensors[up].shape[0]),
            experts=int(parameters[looked.weight[up]].shape[0]),
            chosen=int(tensors[ids].shape[-1]),
            hidden=int(tensors[hidden].shape[-1]),
            ffn=int(inner),
            matrices=1 + int(str(operator.args.get("gates", 1))),
            share=min(share, 1.0),
            count=self.counts[number],
        )

    def _pointwise(self, numbers: list[int]) -> Iterator[Pointwise]:
        """One kernel that reads what it takes from elsewhere once, and writes what others take."""
        looked, inside = self.looked, set(numbers)
        made = {name for n in numbers for name in self.operators[n].outputs}
        read = {looked.source(v) for n in numbers for v in self.operators[n].inputs} - made
        written = {
            name
            for name in made
            if name in self._wanted or any(r not in inside for r in looked.readers.get(name, ()))
        }
        moved = [*(v for v in read if looked.bears(v)), *written]
        share = max(self._share(number) for number in numbers)
        elements = sum(looked.extent(v).width * looked.extent(v).share for v in moved) / share
        if elements:
            yield Pointwise(elements, share, self.per(numbers[0]), self.counts[numbers[0]])

    @cached_property
    def _wanted(self) -> set[str]:
        listing = self.looked.listing
        ends = {*listing.outputs, *(value for value, _, _ in listing.sent)}
        return {self.looked.source(value) for value in ends}

    def _backward(self, names: Iterable[str]) -> tuple[set[int], set[int], bool]:
        """Operators that values come from, as far as products: those, the products, and if all."""
        seen: set[int] = set()
        products: set[int] = set()
        whole = True
        pending = list(names)
        while pending:
            name = pending.pop()
            number = self.looked.maker.get(name)
            if number is None:
                whole = whole and not self.looked.bears(name)
            elif self.kinds[number] == "product":
                products.add(number)
            elif number not in seen:
                whole = whole and self.kinds[number] not in ("attention", "experts", "lookup")
                seen.add(number)
                pending.extend(self.operators[number].inputs)
        return seen, products, whole

    def _rows(self) -> set[int]:
        """Operators that give the model's result from one product: the head.

        Serving engines do these for the last position of each row alone.
        """
        outputs = [v for v in self.looked.listing.outputs if v in self.looked.maker]
        seen, products, whole = self._backward(outputs)
        return seen | products if whole and len(products) == 1 else set()

    def _routers(self) -> set[int]:
        """Products that choose experts; they are not quantised."""
        found: set[int] = set()
        for number, kind in enumerate(self.kinds):
            if kind == "experts":
                operator = self.operators[number]
                chosen = [self.looked.at(operator, slot) for slot in ("ids", "weights")]
                found |= self._backward(chosen)[1]
        return found


def counted(found: Iterable[T]) -> Iterator[T]:
    """Each of equal ones once, with the sum of their counts."""
    counts: dict[T, int] = {}
    for one in found:
        alone = attrs.evolve(one, count=1)
        counts[alone] = counts.get(alone, 0) + one.count
    for alone, count in counts.items():
        yield attrs.evolve(alone, count=count)

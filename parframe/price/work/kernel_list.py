"""Kernels of a device's operator list, fused as in serving engines.

Products of one input are one kernel (query, key and value; gate and up). Connected pointwise
operators between products, attention and communication are one kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import attrs

from parframe.plan import group_axes
from parframe.price.work.dataflow import Flow, product_of
from parframe.price.work.fused_operators import FusedGroup, FusedOperators
from parframe.price.work.operator_list import OperatorList, at
from parframe.price.work.work import (
    Attention,
    Communication,
    Experts,
    Kernel,
    Per,
    Pointwise,
    Product,
)
from parframe.rules import kinds
from parframe.rules.table import DISTRIBUTED_FORMS, kind_of

T = TypeVar("T", bound=Kernel | Communication)


class KernelList:
    """Kernels of an operator list, in the order of execution."""

    def __init__(self, listing: OperatorList, fused: FusedOperators) -> None:
        self.listing = listing
        self.fused = fused
        self.operators = listing.operators
        self.kinds = fused.flow.kinds
        self.counts = listing.counts

    def per(self, number: int) -> Per:
        """Return whether an operator runs for every token, or once for each sequence."""
        return "sequence" if number in self.fused.last_token else "token"

    def kernels(self) -> tuple[Kernel, ...]:
        """Return all kernels, with equal ones merged into one with a count."""
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
                extent = self.listing.scaling(self.operators[number].outputs[0])
                moved = 2.0 * extent.width
                found.append(Pointwise(moved, extent.share, "token", self.counts[number]))
            elif number in self.fused.groups:
                found.extend(self._pointwise(self.fused.groups[number]))
        return tuple(merge_equal(found))

    def _input_of(self, number: int) -> tuple[object, ...]:
        operator = self.operators[number]
        left = at(operator, product_of(operator).left)
        table = number in self.fused.routers
        return self.fused.flow.source(left), self.per(number), table, self.counts[number]

    def inner_and_columns(self, number: int) -> tuple[int, int]:
        """Return the contracted size and the columns of a product's weight on this device."""
        operator = self.operators[number]
        product = product_of(operator)
        shape = self.listing.tensors[at(operator, product.right)].shape
        one, other = int(shape[-2]), int(shape[-1])
        return (other, one) if product.columns_first else (one, other)

    def _product(self, numbers: list[int]) -> Product:
        first = numbers[0]
        sizes = [self.inner_and_columns(number) for number in numbers]
        return Product(
            inner=sizes[0][0],
            columns=sum(columns for _, columns in sizes),
            share=self._share(first),
            per=self.per(first),
            unquantized=first in self.fused.routers or first in self.fused.last_token,
            count=self.counts[first],
        )

    def _share(self, number: int) -> float:
        return max(self.listing.scaling(name).share for name in self.operators[number].outputs)

    def _attention(self, number: int) -> Attention:
        operator, listing = self.operators[number], self.listing
        tensors, extents = listing.tensors, listing.scalings
        kind = kind_of(operator)
        if not isinstance(kind, kinds.Attention):
            return self._written_out(number)
        key_name, value_name = at(operator, kind.key), at(operator, kind.value)
        query = tensors[at(operator, kind.query)].shape
        key, value = tensors[key_name].shape, tensors[value_name].shape
        window = operator.args.get(kind.window)
        return Attention(
            heads=int(query[1]),
            kv_heads=int(key[1]),
            key_width=int(key[3]),
            value_width=int(value[3]),
            cache_width=cached_elements(listing, self.fused.flow, key_name, value_name),
            window=window if isinstance(window, int) else None,
            share=extents.share_of(query[0]),
            position_share=extents.share_of(query[2]),
            count=self.counts[number],
        )

    def _written_out(self, number: int) -> Attention:
        """Return an attention that is written as two products, from the second of them."""
        operator, listing = self.operators[number], self.listing
        tensors = listing.tensors
        value = at(operator, product_of(operator).right)
        scores = next(
            earlier
            for earlier in reversed(self.operators[:number])
            if isinstance(kind_of(earlier), kinds.Product)
            and listing.scaling(earlier.outputs[0]).grows_with == "pairs"
        )
        left = at(scores, product_of(scores).left)
        right = at(scores, product_of(scores).right)
        query, wide = tensors[left].shape, tensors[value].shape
        heads = int(query[-3]) if isinstance(query[-3], int) else 1
        kept = cached_elements(listing, self.fused.flow, right, value)
        share = listing.scaling(operator.outputs[0]).share
        key_width, value_width, count = int(query[-1]), int(wide[-1]), self.counts[number]
        return Attention(heads, heads, key_width, value_width, kept, share=share, count=count)

    def experts(self, number: int) -> Experts:
        """Return the kernel of an experts operator."""
        operator, listing = self.operators[number], self.listing
        tensors, parameters = listing.tensors, listing.parameters
        kind = kind_of(operator)
        names = kind if isinstance(kind, kinds.Experts) else kinds.Experts()
        hidden, ids = at(operator, names.hidden), at(operator, names.ids)
        up, down = at(operator, names.up), at(operator, names.down)
        inner = tensors[down].shape[1 if operator.args.get(names.transposed) else 2]
        share = listing.scaling(hidden).share
        if operator.target in DISTRIBUTED_FORMS:
            share *= len(listing.group(group_axes(operator)))
        return Experts(
            local_experts=int(tensors[up].shape[0]),
            experts=int(parameters[self.fused.flow.weight[up]].shape[0]),
            top_k=int(tensors[ids].shape[-1]),
            hidden=int(tensors[hidden].shape[-1]),
            ffn=int(inner),
            matrices=1 + int(str(operator.args.get(names.gates, 1))),
            share=min(share, 1.0),
            count=self.counts[number],
        )

    def _pointwise(self, group: FusedGroup) -> Iterator[Pointwise]:
        """Yield the fused kernel of a group, which reads and writes the group's traffic once."""
        moved = [self.listing.scaling(name) for name in group.traffic]
        share = max(self.listing.scaling(name).share for name in group.outputs)
        elements = sum(extent.width * extent.share for extent in moved) / share
        first = group.numbers[0]
        if elements:
            yield Pointwise(elements, share, self.per(first), self.counts[first])


def merge_equal(found: Iterable[T]) -> Iterator[T]:
    """Yield each of several equal kernels once, with the sum of their counts."""
    counts: dict[T, int] = {}
    for one in found:
        alone = one if one.count == 1 else attrs.evolve(one, count=1)
        counts[alone] = counts.get(alone, 0) + one.count
    for alone, count in counts.items():
        yield alone if count == 1 else attrs.evolve(alone, count=count)


def cached_elements(listing: OperatorList, flow: Flow, key: str, value: str) -> int:
    """Return the elements that this device caches for each position of an attention.

    A key or value that is made by position from something narrower need not be kept itself. What
    stands before a product is kept in its place only if it is a latent: made by one product of
    its own (and not the stream of hidden states), and narrower than what it becomes. This is the
    latent cache of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).
    """
    known: dict[str, frozenset[str]] = {}
    found = _narrowest(listing, flow, key, known) | _narrowest(listing, flow, value, known)
    direct = listing.scaling(key).width + listing.scaling(value).width
    return min(sum(listing.scaling(name).width for name in found), direct)


def _narrowest(
    listing: OperatorList, flow: Flow, name: str, known: dict[str, frozenset[str]]
) -> frozenset[str]:
    """Return the values with the fewest elements that a value can be computed from."""
    if name in known:
        return known[name]
    if not flow.grows(name):
        return frozenset()
    itself = frozenset({name})
    known[name] = itself
    number = flow.producer.get(name)
    if number is None:
        return itself
    operator, kind = flow.operators[number], flow.kinds[number]
    before: frozenset[str] | None = None
    if kind in ("view", "pointwise", "communication"):
        before = frozenset().union(*(_narrowest(listing, flow, v, known) for v in operator.inputs))
    elif kind == "product":
        given = at(operator, product_of(operator).left)
        if listing.scaling(given).width < listing.scaling(name).width and _is_latent(flow, given):
            before = _narrowest(listing, flow, given, known)
    if before and _width(listing, before) < _width(listing, itself):
        known[name] = before
    return known[name]


def _width(listing: OperatorList, names: frozenset[str]) -> int:
    return sum(listing.scaling(name).width for name in names)


def _is_latent(flow: Flow, name: str) -> bool:
    """Return whether a value is computed by a single matrix product."""
    _, products, whole = flow.backward([name])
    return whole and len(products) == 1

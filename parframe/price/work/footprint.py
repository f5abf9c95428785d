"""What a device holds: weights, caches, and activations while it computes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from parframe.price.work.dataflow import product_of
from parframe.price.work.fused_operators import FusedOperators
from parframe.price.work.kernel_list import KernelList
from parframe.price.work.operator_list import at
from parframe.price.work.work import Attention, Experts, Footprint, Kernel, Product


@attrs.frozen
class Liveness:
    """What is held when, whatever the sizes.

    Parameters
    ----------
    users
        For every weight, the operators that take it.
    quantised
        The weights that are quantised in a quantised model.
    lives
        In order of execution: an operator, the activations that come alive with it, and those
        that no later one takes.
    """

    users: dict[str, tuple[int, ...]]
    quantised: frozenset[str]
    lives: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...]

    @classmethod
    def of(cls, merged: FusedOperators) -> Liveness:
        """Look through the operators of a device."""
        users: dict[str, list[int]] = {}
        for number, operator in enumerate(merged.flow.operators):
            for name in operator.inputs:
                if name in merged.flow.parameters:
                    users.setdefault(name, []).append(number)
        found = {name: tuple(numbers) for name, numbers in users.items()}
        return cls(found, frozenset(_quantised(merged)), tuple(_lives(merged)))


def _quantised(merged: FusedOperators) -> set[str]:
    """Weights of products and experts, but for those of the head, of routers and of tables."""
    flow = merged.flow
    found: set[str] = set()
    for number, operator in enumerate(flow.operators):
        if flow.kinds[number] == "product":
            if number not in merged.routers and number not in merged.rows:
                weight = at(operator, product_of(operator).right)
                found.add(flow.weight.get(flow.source(weight), weight))
        elif flow.kinds[number] == "experts":
            found |= {flow.weight[at(operator, slot)] for slot in ("up", "down")}
        elif flow.kinds[number] == "lookup":
            found.discard(operator.inputs[0])
    return found


def _lives(merged: FusedOperators) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """When activations come and go; what stays within one kernel is never held."""
    flow, group_of = merged.flow, merged.group_of
    last = {name: max(numbers) for name, numbers in flow.readers.items()}
    leaving: dict[int, list[str]] = {}
    for number, operator in enumerate(flow.operators):
        coming: list[str] = []
        counts = flow.kinds[number] not in ("free", "view") and number not in merged.rows
        for name in operator.outputs if counts else ():
            alone = group_of.get(number)
            readers = flow.readers.get(name, ())
            inside = alone is not None and all(group_of.get(one) == alone for one in readers)
            if not inside and flow.known[name] == "tokens":
                coming.append(name)
                leaving.setdefault(last.get(name, len(flow.operators)), []).append(name)
        left = leaving.pop(number, [])
        if coming or left or (counts and flow.kinds[number] == "experts"):
            yield number, tuple(coming), tuple(left)


def compute_footprint(
    kernels: KernelList, holding: Liveness, computed: tuple[Kernel, ...]
) -> Footprint:
    """What the device of a listing holds, in elements."""
    weights, tables = _weights(kernels, holding)
    attentions = [kernel for kernel in computed if isinstance(kernel, Attention)]
    kept: dict[int | None, int] = {}
    for attention in attentions:
        kept[attention.window] = (
            kept.get(attention.window, 0) + attention.cache_width * attention.count
        )
    return Footprint(
        weights=weights,
        unquantized=tables,
        cache=tuple((elements, window) for window, elements in kept.items()),
        batch_share=max((attention.share for attention in attentions), default=1.0),
        position_share=max((attention.position_share for attention in attentions), default=1.0),
        activations=_alive(kernels, holding),
    )


def _weights(kernels: KernelList, holding: Liveness) -> tuple[int, int]:
    """Elements that are quantised in a quantised model, and those that never are."""
    listing, counts = kernels.measured.listing, kernels.counts
    sizes = {
        name: max(counts[user] for user in users)
        * math.prod(int(size) for size in listing.tensors[name].shape)
        for name, users in holding.users.items()
        if listing.parameters[name].kind == "parameter"
    }
    inside = sum(size for name, size in sizes.items() if name in holding.quantised)
    return inside, sum(sizes.values()) - inside


def _alive(kernels: KernelList, holding: Liveness) -> float:
    """The most elements of activations that are alive at once, for a token of the step."""
    alive = most = 0.0
    for number, coming, leaving in holding.lives:
        for name in coming:
            alive += _size(kernels, name)
        if coming or kernels.kinds[number] == "experts":
            most = max(most, alive + _within(kernels, number))
        for name in leaving:
            alive -= _size(kernels, name)
    return most


def _size(kernels: KernelList, name: str) -> float:
    extent = kernels.measured.extent(name)
    return extent.width * extent.share


def _within(kernels: KernelList, number: int) -> float:
    """What experts need for the tokens that chose them, while they compute."""
    if kernels.kinds[number] != "experts":
        return 0.0
    found = kernels.experts(number)
    visits = found.share * found.top_k * found.local_experts / found.experts
    return visits * (found.matrices * found.ffn + found.hidden)


def compute_load(computed: tuple[Kernel, ...], held: Footprint) -> float:
    """How busy a device is beside its likes: multiplications for a token, and what it holds."""
    total = float(held.weights + held.unquantized)
    for kernel in computed:
        if isinstance(kernel, Attention):
            width = kernel.key_width + kernel.value_width
            total += kernel.count * kernel.share * kernel.position_share * kernel.heads * width
        elif isinstance(kernel, Experts):
            part = kernel.share * kernel.top_k * kernel.local_experts / kernel.experts
            total += kernel.count * part * kernel.matrices * kernel.hidden * kernel.ffn
        elif isinstance(kernel, Product):
            total += kernel.count * kernel.share * kernel.inner * kernel.columns
    return total

"""Memory footprint of a device: weights, caches, and live activations."""

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
    """Users of weights and lifetimes of activations, without sizes.

    Parameters
    ----------
    users
        Operators that use each weight.
    quantized
        Weights that a quantized model quantizes.
    lifetimes
        In order of execution: an operator, the activations that it makes, and those that it uses
        last.
    """

    users: dict[str, tuple[int, ...]]
    quantized: frozenset[str]
    lifetimes: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...]

    @classmethod
    def of(cls, merged: FusedOperators) -> Liveness:
        """Analyze the operators of a device."""
        users: dict[str, list[int]] = {}
        for number, operator in enumerate(merged.flow.operators):
            for name in operator.inputs:
                if name in merged.flow.parameters:
                    users.setdefault(name, []).append(number)
        found = {name: tuple(numbers) for name, numbers in users.items()}
        return cls(found, frozenset(_quantized(merged)), tuple(_lifetimes(merged)))


def _quantized(merged: FusedOperators) -> set[str]:
    """Return the weights of products and experts, except the head, routers and embeddings."""
    flow = merged.flow
    found: set[str] = set()
    for number, operator in enumerate(flow.operators):
        if flow.kinds[number] == "product":
            if number not in merged.routers and number not in merged.last_token:
                weight = at(operator, product_of(operator).right)
                found.add(flow.weight.get(flow.source(weight), weight))
        elif flow.kinds[number] == "experts":
            found |= {flow.weight[at(operator, slot)] for slot in ("up", "down")}
        elif flow.kinds[number] == "lookup":
            found.discard(operator.inputs[0])
    return found


def _lifetimes(merged: FusedOperators) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """Yield the lifetimes of activations, without those inside one fused kernel."""
    flow, group_of = merged.flow, merged.group_of
    last = {name: max(numbers) for name, numbers in flow.readers.items()}
    leaving: dict[int, list[str]] = {}
    for number, operator in enumerate(flow.operators):
        coming: list[str] = []
        counts = flow.kinds[number] not in ("free", "view") and number not in merged.last_token
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
    """Return the footprint of a device, in elements."""
    weights, tables = _weights(kernels, holding)
    attentions = [kernel for kernel in computed if isinstance(kernel, Attention)]
    cache: dict[int | None, int] = {}
    for attention in attentions:
        width = attention.cache_width * attention.count
        cache[attention.window] = cache.get(attention.window, 0) + width
    return Footprint(
        weights=weights,
        unquantized=tables,
        cache=tuple((elements, window) for window, elements in cache.items()),
        batch_share=max((attention.share for attention in attentions), default=1.0),
        position_share=max((attention.position_share for attention in attentions), default=1.0),
        activations=_alive(kernels, holding),
    )


def _weights(kernels: KernelList, holding: Liveness) -> tuple[int, int]:
    """Return the elements of weights that a quantized model quantizes, and of the others."""
    listing, counts = kernels.listing, kernels.counts
    sizes = {
        name: max(counts[user] for user in users)
        * math.prod(int(size) for size in listing.tensors[name].shape)
        for name, users in holding.users.items()
        if listing.parameters[name].kind == "parameter"
    }
    inside = sum(size for name, size in sizes.items() if name in holding.quantized)
    return inside, sum(sizes.values()) - inside


def _alive(kernels: KernelList, holding: Liveness) -> float:
    """Return the peak elements of live activations for each token of the step."""
    alive = most = 0.0
    for number, coming, leaving in holding.lifetimes:
        for name in coming:
            alive += _size(kernels, name)
        if coming or kernels.kinds[number] == "experts":
            most = max(most, alive + _within(kernels, number))
        for name in leaving:
            alive -= _size(kernels, name)
    return most


def _size(kernels: KernelList, name: str) -> float:
    extent = kernels.listing.scaling(name)
    return extent.width * extent.share


def _within(kernels: KernelList, number: int) -> float:
    """Return the elements that experts use for their tokens while they compute."""
    if kernels.kinds[number] != "experts":
        return 0.0
    found = kernels.experts(number)
    visits = found.share * found.top_k * found.local_experts / found.experts
    return visits * (found.matrices * found.ffn + found.hidden)


def compute_load(computed: tuple[Kernel, ...], footprint: Footprint) -> float:
    """Return the relative load of a device: multiplications for a token, and its weights."""
    total = float(footprint.weights + footprint.unquantized)
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

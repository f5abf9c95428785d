"""What a device holds: weights, caches, and activations while it computes."""

from __future__ import annotations

import math

from parframe.price.listing import PRODUCTS
from parframe.price.plan_kernels import Kernels
from parframe.price.work import Attention, Experts, Held, Kernel, Product


def held_of(kernels: Kernels, computed: tuple[Kernel, ...]) -> Held:
    """What the device of a listing holds, in elements."""
    weights, tables = _weights(kernels)
    attentions = [kernel for kernel in computed if isinstance(kernel, Attention)]
    kept: dict[int | None, int] = {}
    for attention in attentions:
        kept[attention.window] = kept.get(attention.window, 0) + attention.kept * attention.count
    return Held(
        weights=weights,
        tables=tables,
        kept=tuple((elements, window) for window, elements in kept.items()),
        share=max((attention.share for attention in attentions), default=1.0),
        positions=max((attention.keys for attention in attentions), default=1.0),
        alive=_alive(kernels),
    )


def _weights(kernels: Kernels) -> tuple[int, int]:
    """Elements that are quantised in a quantised model, and those that never are."""
    looked = kernels.looked
    counts: dict[str, int] = {}
    quantised: set[str] = set()
    for number, operator in enumerate(looked.operators):
        for name in operator.inputs:
            if name in looked.listing.parameters:
                counts[name] = max(counts.get(name, 0), kernels.counts[number])
        if looked.kinds[number] == "product":
            if number not in kernels.routers and number not in kernels.rows:
                weight = looked.at(operator, PRODUCTS[operator.target][1])
                quantised.add(looked.weight.get(looked.source(weight), weight))
        elif looked.kinds[number] == "experts":
            quantised |= {looked.weight[looked.at(operator, slot)] for slot in ("up", "down")}
        elif looked.kinds[number] == "lookup":
            quantised.discard(operator.inputs[0])
    sizes = {
        name: count * math.prod(int(size) for size in looked.listing.tensors[name].shape)
        for name, count in counts.items()
        if looked.listing.parameters[name].kind == "parameter"
    }
    inside = sum(size for name, size in sizes.items() if name in quantised)
    return inside, sum(sizes.values()) - inside


def _alive(kernels: Kernels) -> float:
    """The most elements of activations that are alive at once, for a token of the step."""
    looked = kernels.looked
    last = {name: max(numbers) for name, numbers in looked.readers.items()}
    freed: dict[int, list[str]] = {}
    alive = most = 0.0
    for number, operator in enumerate(looked.operators):
        if looked.kinds[number] not in ("free", "view") and number not in kernels.rows:
            for name in operator.outputs:
                alone = kernels.group_of.get(number)
                readers = looked.readers.get(name, ())
                inside = alone is not None and all(
                    kernels.group_of.get(reader) == alone for reader in readers
                )
                if not inside and looked.extent(name).bears == "tokens":
                    alive += _size(kernels, name)
                    freed.setdefault(last.get(name, len(looked.operators)), []).append(name)
            most = max(most, alive + _within(kernels, number))
        for name in freed.pop(number, ()):
            alive -= _size(kernels, name)
    return most


def _size(kernels: Kernels, name: str) -> float:
    extent = kernels.looked.extent(name)
    return extent.width * extent.share


def _within(kernels: Kernels, number: int) -> float:
    """What experts need for the tokens that chose them, while they compute."""
    if kernels.looked.kinds[number] != "experts":
        return 0.0
    found = kernels.experts(number)
    visits = found.share * found.chosen * found.held / found.experts
    return visits * (found.matrices * found.ffn + found.hidden)


def load_of(computed: tuple[Kernel, ...], held: Held) -> float:
    """How busy a device is beside its likes: multiplications for a token, and what it holds."""
    total = float(held.weights + held.tables)
    for kernel in computed:
        if isinstance(kernel, Attention):
            width = kernel.key_width + kernel.value_width
            total += kernel.count * kernel.share * kernel.keys * kernel.heads * width
        elif isinstance(kernel, Experts):
            part = kernel.share * kernel.chosen * kernel.held / kernel.experts
            total += kernel.count * part * kernel.matrices * kernel.hidden * kernel.ffn
        elif isinstance(kernel, Product):
            total += kernel.count * kernel.share * kernel.inner * kernel.columns
    return total

"""Width of a KV cache entry: keys and values, or the latent that both are computed from."""

from __future__ import annotations

from parframe.price.work.dataflow import Flow, product_of
from parframe.price.work.operator_list import ScaledOperators, at


def cached_elements(measured: ScaledOperators, flow: Flow, key: str, value: str) -> int:
    """Return the elements that this device caches for each position of an attention.

    A key or value that is made by position from something narrower need not be kept itself. What
    stands before a product is kept in its place only if it is a latent: made by one product of
    its own (and not the stream of hidden states), and narrower than what it becomes. This is the
    latent cache of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).
    """
    known: dict[str, frozenset[str]] = {}
    found = _narrowest(measured, flow, key, known) | _narrowest(measured, flow, value, known)
    direct = measured.scaling(key).width + measured.scaling(value).width
    return min(sum(measured.scaling(name).width for name in found), direct)


def _narrowest(
    measured: ScaledOperators, flow: Flow, name: str, known: dict[str, frozenset[str]]
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
        before = frozenset().union(*(_narrowest(measured, flow, v, known) for v in operator.inputs))
    elif kind == "product":
        given = at(operator, product_of(operator).left)
        if measured.scaling(given).width < measured.scaling(name).width and _is_latent(flow, given):
            before = _narrowest(measured, flow, given, known)
    if before and _width(measured, before) < _width(measured, itself):
        known[name] = before
    return known[name]


def _width(measured: ScaledOperators, names: frozenset[str]) -> int:
    return sum(measured.scaling(name).width for name in names)


def _is_latent(flow: Flow, name: str) -> bool:
    """Return whether a value is computed by a single matrix product."""
    products = set()
    pending, seen = [name], set()
    while pending:
        at = pending.pop()
        if at in seen or not flow.grows(at):
            continue
        seen.add(at)
        number = flow.producer.get(at)
        if number is None or flow.kinds[number] in ("lookup", "attention", "experts"):
            return False
        if flow.kinds[number] == "product":
            products.add(number)
            if len(products) > 1:
                return False
        else:
            pending.extend(flow.operators[number].inputs)
    return len(products) == 1

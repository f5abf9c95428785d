"""What a cache keeps of a position: keys and values, or the narrow values both are made from."""

from __future__ import annotations

from parframe.price.listing import PRODUCTS, Looked


def kept_elements(looked: Looked, key: str, value: str) -> int:
    """Elements that are kept of a position for an attention on this device.

    A key or value that is made by position from something narrower need not be kept itself. What
    stands before a product is kept in its place only if it is a latent: made by one product of
    its own (and not the stream of hidden states), and narrower than what it becomes. This is the
    latent cache of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).
    """
    found = _narrowest(looked, key, {}) | _narrowest(looked, value, {})
    direct = looked.extent(key).width + looked.extent(value).width
    return min(sum(looked.extent(name).width for name in found), direct)


def _narrowest(looked: Looked, name: str, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """The values of which there are the fewest elements that a value can be made from."""
    if name in known:
        return known[name]
    if not looked.bears(name):
        return frozenset()
    itself = frozenset({name})
    known[name] = itself
    number = looked.maker.get(name)
    if number is None:
        return itself
    operator, kind = looked.operators[number], looked.kinds[number]
    before: frozenset[str] | None = None
    if kind in ("view", "pointwise", "exchange"):
        before = frozenset().union(*(_narrowest(looked, v, known) for v in operator.inputs))
    elif kind == "product":
        given = looked.at(operator, PRODUCTS[operator.target][0])
        if looked.extent(given).width < looked.extent(name).width and _is_latent(looked, given):
            before = _narrowest(looked, given, known)
    if before and _width(looked, before) < _width(looked, itself):
        known[name] = before
    return known[name]


def _width(looked: Looked, names: frozenset[str]) -> int:
    return sum(looked.extent(name).width for name in names)


def _is_latent(looked: Looked, name: str) -> bool:
    """Whether a value comes from one product alone."""
    products = set()
    pending, seen = [name], set()
    while pending:
        at = pending.pop()
        if at in seen or not looked.bears(at):
            continue
        seen.add(at)
        number = looked.maker.get(at)
        if number is None or looked.kinds[number] in ("lookup", "attention", "experts"):
            return False
        if looked.kinds[number] == "product":
            products.add(number)
            if len(products) > 1:
                return False
        else:
            pending.extend(looked.operators[number].inputs)
    return len(products) == 1

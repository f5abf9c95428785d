"""Exchanges typed: an operator whose devices exchange a letter is the one that would gather it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from parframe.checking.checked_model import Origin
from parframe.checking.local_forms import BoundLocal, written_plain
from parframe.checking.operator_types import Fault, Step, disagree
from parframe.checking.tensor_types import Place
from parframe.graph import Operator
from parframe.layout import Range, dims_of
from parframe.rules import Exchange, Signature
from parframe.rules.signature import Pattern, bearing, spell


@attrs.frozen
class Exchanged:
    """An exchange of one of the model's operators.

    ``moved`` are the numbers of the inputs that have the letter that travels, ``dims`` its
    dimensions.
    """

    exchange: Exchange
    signature: Signature
    moved: tuple[int, ...]
    dims: frozenset[str]


def exchanged(operator: Operator, origin: Origin | None) -> Exchanged | None:
    """The exchange that a device's operator is; None if the model's operator has no such form."""
    if origin is None or origin.bound.rule is None or origin.bound.signature is None:
        return None
    signature = origin.bound.signature
    for exchange in origin.bound.rule.exchanges:
        if exchange.target == operator.target:
            dims = dims_of(origin.bound.labels.get(exchange.travels) or ())
            return Exchanged(exchange, signature, bearing(signature, exchange.travels), dims)
    return None


def apart(origin: Origin, found: Exchanged, places: Mapping[int, Place]) -> Iterator[Fault]:
    """What does not belong together: the inputs that travel are the same part on a device."""
    operator = origin.operator
    pieces = {
        number: _pieces(place, found.signature.inputs[number], found)
        for number, place in places.items()
    }
    first, *others = sorted(pieces)
    for number in others:
        if pieces[number] != pieces[first]:
            names = operator.inputs[number], operator.inputs[first]
            yield "type", disagree(pieces[number], pieces[first], *names)


def _pieces(where: Place, patterns: Sequence[Pattern], found: Exchanged) -> dict[str, Range]:
    """What a device holds of the letter that travels."""
    return {
        dim: piece
        for axis, pattern in enumerate(patterns)
        if found.exchange.travels in spell(pattern)
        for dim, piece in where.pieces(axis).items()
        if dim in found.dims
    }


def as_exchange(
    step: Step,
    operator: Operator,
    origin: Origin,
    found: Exchanged,
    places: Mapping[int, Place],
) -> Step:
    """A typed operator in the one form of the exchange: the model's, and who exchanges what.

    ``places`` has what the device itself holds of every input.
    """
    slots = origin.operator.slots
    more = {
        "travels": tuple(dict.fromkeys(slots[number] for number in found.moved)),
        "axes": operator.args["axes"],
        "tag": operator.args["tag"],
    }
    if found.exchange.more is not None:
        pieces = _letter_pieces(origin, found.signature, places)
        inputs = tuple(places[number] for number in range(len(slots)))
        local = BoundLocal(origin.bound, found.signature, inputs, step.outputs, pieces, False)
        more.update(found.exchange.more(local))
    (plain,) = written_plain(origin.bound, step.outputs)
    form = attrs.evolve(plain, target=found.exchange.target, args={**plain.args, **more})
    return attrs.evolve(step, forms=((form,),))


def _letter_pieces(
    origin: Origin, signature: Signature, places: Mapping[int, Place]
) -> dict[str, dict[str, Range]]:
    """What a device holds of every letter."""
    pieces: dict[str, dict[str, Range]] = {}
    for number, where in places.items():
        for axis, pattern in enumerate(signature.inputs[number]):
            for letter in spell(pattern):
                dims = dims_of(origin.bound.labels.get(letter) or ())
                held = where.pieces(axis).items()
                pieces.setdefault(letter, {}).update((d, piece) for d, piece in held if d in dims)
    return pieces

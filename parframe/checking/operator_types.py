"""One operator typed: its rule and what a device holds of its inputs in, what it gives out.

Nothing here depends on which call of a block it is, so the layers of a model share the work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from parframe.checking.local_forms import (
    Written,
    bare_bound,
    written_locally,
    written_plain,
)
from parframe.checking.samples import same
from parframe.checking.tensor_types import Contribution, Pending, Place, Share, place
from parframe.dims import BoundOperator
from parframe.layout import Axis, Factor, Leaf, Pieces, Range, dims_of, local_size
from parframe.rules import Signature
from parframe.rules.signature import Pattern, spell
from parframe.sizes import Size, divide, product

Fault = tuple[str, str]
"""A kind of finding and its message."""


@attrs.frozen
class Step:
    """What an operator gives on a device.

    ``forms`` are the ways in which it may be written there; ``contributions`` is empty where the
    result is complete.
    """

    outputs: tuple[Place, ...]
    forms: tuple[tuple[Written, ...], ...]
    contributions: frozenset[Contribution]
    reduction: str
    faults: tuple[Fault, ...]


def type_operator(
    bound: BoundOperator,
    axes: Mapping[str, tuple[Axis, ...]],
    inputs: tuple[Place, ...],
    pending: tuple[tuple[Pending, ...], ...],
    claimed: tuple[tuple[Size, ...], ...],
    bare: bool,
    homes: Callable[[str], Sequence[Range]],
) -> Step:
    """Type one operator.

    Parameters
    ----------
    bound, axes
        The model's operator with its rule, and the dimensions of its block's values.
    inputs, pending
        What the device holds of its inputs, and what is to be reduced in them.
    claimed
        The recorded shapes of its outputs, by which a device may choose how much it computes
        where all elements are alike.
    bare
        Whether the addend is left out.
    homes
        The ranges of a dimension that the device holds elsewhere.
    """
    operator = bound.site.operator
    signature = bound.signature
    faults: list[Fault] = []
    whole_outputs = tuple(place(axes[value], [{}] * len(axes[value])) for value in operator.outputs)
    if signature is None:
        if any(not where.whole for where in inputs) or any(pending):
            faults.append(("type", f"{operator.target} has no rule, but an input of it is split"))
        return Step(
            whole_outputs, (written_plain(bound, whole_outputs),), frozenset(), "", (*faults,)
        )
    pieces = _letter_pieces(bound, signature, inputs, bare, faults)
    outputs = _outputs(bound, signature, axes, pieces, claimed, homes)
    passing, reduction = _passing(bound, signature, pending, bare, faults)
    made = _contracted(bound, signature, pieces)
    if made:
        if reduction not in ("", signature.reduction):
            faults.append(("partial", f"a {reduction} to be reduced meets a {signature.reduction}"))
        reduction = signature.reduction
        if passing and any(
            dim in {s.dim for c in made for s in c} for c in passing for _, dim in _keys(c)
        ):
            faults.append(("partial", "a dimension is contracted whose sum is still to be reduced"))
    contributions = _times(passing, made)
    if contributions and signature.addend is not None and not bare:
        faults.append(
            ("partial", "the addend (bias) is added to a sum that is still to be reduced")
        )
    return Step(
        outputs,
        tuple(_forms(bound, inputs, outputs, pieces, bare)),
        contributions,
        reduction if contributions else "",
        tuple(faults),
    )


def _keys(contribution: Contribution) -> Iterator[tuple[str, str]]:
    return ((share.source, share.dim) for share in contribution)


def _forms(
    bound: BoundOperator,
    inputs: tuple[Place, ...],
    outputs: tuple[Place, ...],
    pieces: Mapping[str, Pieces],
    bare: bool,
) -> Iterator[tuple[Written, ...]]:
    """The ways in which the operator may be written on the device, the likeliest first."""
    rule = bound.rule
    if bare:
        at = -1 if bound.signature is None else bound.signature.addend
        bound = bare_bound(bound)
        inputs = tuple(where for number, where in enumerate(inputs) if number != at)
    if rule is None or rule.local is None or not any(pieces.values()):
        yield written_plain(bound, outputs)
    for every in (False, True):
        found = written_locally(bound, inputs, outputs, pieces, every)
        if found is not None:
            yield found


def _letter_pieces(
    bound: BoundOperator,
    signature: Signature,
    inputs: tuple[Place, ...],
    bare: bool,
    faults: list[Fault],
) -> dict[str, dict[str, Range]]:
    """What the device holds of every letter; inputs must agree."""
    pieces: dict[str, dict[str, Range]] = {}
    first: dict[str, str] = {}
    blocked = signature.unsplittable()
    for number, (where, patterns) in enumerate(zip(inputs, signature.inputs, strict=True)):
        if bare and number == signature.addend:
            continue
        value = bound.site.operator.inputs[number]
        for axis, pattern in enumerate(patterns):
            found = where.pieces(axis)
            left = set(found)
            for letter in spell(pattern):
                structure = bound.labels.get(letter)
                dims = dims_of(structure) if structure is not None else frozenset()
                own = {dim: piece for dim, piece in found.items() if dim in dims}
                left -= dims
                if own and letter in blocked:
                    faults.append(
                        ("type", f"{_names(own)} must be whole in {bound.site.operator.target}")
                    )
                    own = {}
                if letter not in first:
                    first[letter], pieces[letter] = value, own
                elif own != pieces[letter] and letter not in signature.dropped:
                    faults.append(("type", disagree(own, pieces[letter], value, first[letter])))
            if left:
                faults.append(
                    (
                        "type",
                        f"axis {axis} of {value} must be whole, {_names(sorted(left))} is split",
                    )
                )
    return pieces


def _names(dims: Iterable[str]) -> str:
    return ", ".join(dims)


def disagree(own: Pieces, other: Pieces, value: str, first: str) -> str:
    """Tell how two inputs differ in what a device holds of them."""
    dims = sorted(dim for dim in {*own, *other} if own.get(dim) != other.get(dim))
    return f"{_names(dims)} is {_texts(own, dims)} in {value}, but {_texts(other, dims)} in {first}"


def _texts(pieces: Pieces, dims: list[str]) -> str:
    return ", ".join(
        f"{pieces[dim].start} to {pieces[dim].stop}" if dim in pieces else "whole" for dim in dims
    )


def _outputs(
    bound: BoundOperator,
    signature: Signature,
    axes: Mapping[str, tuple[Axis, ...]],
    pieces: dict[str, dict[str, Range]],
    claimed: tuple[tuple[Size, ...], ...],
    homes: Callable[[str], Sequence[Range]],
) -> tuple[Place, ...]:
    """Which part of every output the device computes."""
    result = []
    for number, (value, patterns) in enumerate(
        zip(bound.site.operator.outputs, signature.outputs, strict=True)
    ):
        found: list[Pieces] = []
        for axis, pattern in enumerate(patterns):
            shape = claimed[number] if number < len(claimed) else ()
            size = shape[axis] if axis < len(shape) else 0
            _choose(bound, signature, pattern, pieces, size, homes)
            own: dict[str, Range] = {}
            for letter in spell(pattern):
                own.update(pieces.get(letter, {}))
            found.append(own)
        result.append(place(axes[value], found))
    return tuple(result)


def _choose(
    bound: BoundOperator,
    signature: Signature,
    pattern: Pattern,
    pieces: dict[str, dict[str, Range]],
    size: Size,
    homes: Callable[[str], Sequence[Range]],
) -> None:
    """Take a range of a letter along which all elements are alike: the one the device has."""
    for letter in spell(pattern):
        structure = bound.labels.get(letter)
        if letter not in signature.free or letter in pieces or not structure:
            continue
        pieces[letter] = {}
        total = signature.sizes[letter]
        beside = _beside(bound, signature, pattern, letter, pieces)
        # a device that holds nothing of an axis may hold nothing of this letter, too
        here = divide(size, beside) if beside != 0 else 0
        if here is None or here == total:
            continue
        for factor in structure:
            minor = divide(total, factor.size)
            length = divide(here, minor) if minor is not None else None
            found = _held_elsewhere(factor, length, homes) if length is not None else None
            if found is not None:
                pieces[letter].update(found)
                break


def _held_elsewhere(
    factor: Factor, length: Size, homes: Callable[[str], Sequence[Range]]
) -> Pieces | None:
    """The ranges that the device holds of a factor's dimensions, so much of it together."""
    dims = sorted(dims_of((factor,)))
    for chosen in itertools.product(*(homes(dim) for dim in dims)):
        pieces = dict(zip(dims, chosen, strict=True))
        if same(local_size((factor,), pieces), length):
            return pieces
    return None


def _beside(
    bound: BoundOperator,
    signature: Signature,
    pattern: Pattern,
    letter: str,
    pieces: Mapping[str, Pieces],
) -> Size:
    """How much of an axis the device holds, but for one of its letters."""
    return product(
        signature.sizes[other]
        if bound.labels.get(other) is None
        else local_size(bound.labels[other] or (), pieces.get(other, {}))
        for other in spell(pattern)
        if other != letter
    )


def _contracted(
    bound: BoundOperator, signature: Signature, pieces: Mapping[str, Pieces]
) -> frozenset[Contribution]:
    """What the device sums over of the letters that are reduced."""
    result: frozenset[Contribution] = frozenset()
    source = bound.site.operator.name
    for letter in sorted(signature.contracted()):
        axis, own = bound.labels.get(letter), pieces.get(letter)
        if axis is not None and own:
            result = _times(result, _shares(axis, own, f"{source}.{letter}"))
    return result


def _shares(axis: Axis, own: Pieces, source: str) -> frozenset[Contribution]:
    """A product over the factors of an axis; segments are summed one by one."""
    result: frozenset[Contribution] = frozenset()
    for factor in axis:
        if isinstance(factor, Leaf):
            if factor.dim in own:
                share = Share(source, factor.dim, factor.size, own[factor.dim])
                result = _times(result, frozenset({(share,)}))
            continue
        parts: set[Contribution] = set()
        for number, part in enumerate(factor.parts):
            parts |= _shares(part, own, f"{source}[{number}]") or {()}
        if parts != {()}:
            result = _times(result, frozenset(parts))
    return result


def _times(
    left: frozenset[Contribution], right: frozenset[Contribution]
) -> frozenset[Contribution]:
    """Products of contributions; an empty side is complete."""
    if not left or not right:
        return left or right
    return frozenset(
        tuple(sorted({*one, *other}, key=lambda share: (share.source, share.dim)))
        for one in left
        for other in right
    )


def _passing(
    bound: BoundOperator,
    signature: Signature,
    pending: tuple[tuple[Pending, ...], ...],
    bare: bool,
    faults: list[Fault],
) -> tuple[frozenset[Contribution], str]:
    """What is still to be reduced in the inputs, if the operator lets it pass."""
    skipped = signature.addend if bare else None
    partial = frozenset(i for i, terms in enumerate(pending) if terms and i != skipped)
    if not partial:
        return frozenset(), ""
    found = frozenset(c for i in partial for term in pending[i] for c in term.contributions)
    reductions = {term.reduction for i in partial for term in pending[i]}
    linear = reductions == {"sum"} and partial in signature.linear
    moves = (
        signature.moves
        and len(reductions) == 1
        and (len(partial) == 1 if len(pending) == 1 else partial in signature.linear)
    )
    if not linear and not moves:
        names = _names(bound.site.operator.inputs[i] for i in sorted(partial))
        faults.append(
            ("partial", f"{names} is still to be reduced, and {bound.site.operator.target} "
             "is not linear in it")
        )  # fmt: skip
    return found, min(reductions)

"""Ranges of a rule's labels that a device has, from its inputs, and the shards of its outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from parframe.checking.findings import Fault
from parframe.checking.samples import same_size
from parframe.checking.tensor_types import TensorShard, make_shard
from parframe.dims import BoundOperator
from parframe.layout import Factor, Pieces, Range, TensorDim, dims_of, local_size
from parframe.rules import Signature
from parframe.rules.signature import Pattern, spell
from parframe.sizes import Size, divide, product

LabelPieces = dict[str, dict[str, Range]]
"""For every label, the ranges of its dimensions that are split."""

KnownRanges = Callable[[str], Sequence[Range]]
"""Function that returns the ranges of a dimension that other values of the device have."""


def label_pieces(
    bound: BoundOperator,
    signature: Signature,
    inputs: tuple[TensorShard, ...],
    addend_omitted: bool,
    faults: list[Fault],
) -> LabelPieces:
    """Return the ranges of every label that a device has.

    Faults are added where inputs disagree, or where a dim is split that must be whole.
    """
    pieces: LabelPieces = {}
    first: dict[str, str] = {}
    unsplittable = signature.unsplittable()
    for number, (shard, patterns) in enumerate(zip(inputs, signature.inputs, strict=True)):
        if addend_omitted and number == signature.addend:
            continue
        value = bound.site.operator.inputs[number]
        for position, pattern in enumerate(patterns):
            split = shard.pieces(position)
            unlabeled = set(split)
            for label in spell(pattern):
                dims = dims_of(bound.labels.get(label) or ())
                own = {dim: piece for dim, piece in split.items() if dim in dims}
                unlabeled -= dims
                if own and label in unsplittable:
                    target = bound.site.operator.target
                    faults.append(("type", f"{', '.join(own)} must be whole in {target}"))
                    own = {}
                if label not in first:
                    first[label], pieces[label] = value, own
                elif own != pieces[label] and label not in signature.dropped:
                    message = describe_disagreement(own, pieces[label], value, first[label])
                    faults.append(("type", message))
            if unlabeled:
                names = ", ".join(sorted(unlabeled))
                faults.append(
                    ("type", f"dim {position} of {value} must be whole, {names} is split")
                )
    return pieces


def describe_disagreement(own: Pieces, other: Pieces, value: str, first: str) -> str:
    """Return how the parts of two inputs differ on a device."""
    dims = sorted(dim for dim in {*own, *other} if own.get(dim) != other.get(dim))
    own_text, other_text = _format_ranges(own, dims), _format_ranges(other, dims)
    return f"{', '.join(dims)} is {own_text} in {value}, but {other_text} in {first}"


def _format_ranges(pieces: Pieces, dims: list[str]) -> str:
    return ", ".join(
        f"{pieces[dim].start} to {pieces[dim].stop}" if dim in pieces else "whole" for dim in dims
    )


def output_shards(
    bound: BoundOperator,
    signature: Signature,
    tensor_dims: Mapping[str, tuple[TensorDim, ...]],
    pieces: LabelPieces,
    recorded_shapes: tuple[tuple[Size, ...], ...],
    known_ranges: KnownRanges,
) -> tuple[TensorShard, ...]:
    """Return the part of every output that the device computes."""
    result = []
    for number, (value, patterns) in enumerate(
        zip(bound.site.operator.outputs, signature.outputs, strict=True)
    ):
        output_pieces: list[Pieces] = []
        for position, pattern in enumerate(patterns):
            shape = recorded_shapes[number] if number < len(recorded_shapes) else ()
            size = shape[position] if position < len(shape) else 0
            _choose_free_ranges(bound, signature, pattern, pieces, size, known_ranges)
            own: dict[str, Range] = {}
            for label in spell(pattern):
                own.update(pieces.get(label, {}))
            output_pieces.append(own)
        result.append(make_shard(tensor_dims[value], output_pieces))
    return tuple(result)


def _choose_free_ranges(
    bound: BoundOperator,
    signature: Signature,
    pattern: Pattern,
    pieces: LabelPieces,
    size: Size,
    known_ranges: KnownRanges,
) -> None:
    """Choose the ranges of free labels, along which all elements are equal.

    They are ranges that the device has in other values, and that give the recorded size.
    """
    for label in spell(pattern):
        tensor_dim = bound.labels.get(label)
        if label not in signature.free or label in pieces or not tensor_dim:
            continue
        pieces[label] = {}
        total = signature.sizes[label]
        others = _size_of_other_labels(bound, signature, pattern, label, pieces)
        # a device with an empty part of the dim may have an empty part of this label, too
        here = divide(size, others) if others != 0 else 0
        if here is None or here == total:
            continue
        for factor in tensor_dim:
            minor = divide(total, factor.size)
            length = divide(here, minor) if minor is not None else None
            chosen = _known_pieces(factor, length, known_ranges) if length is not None else None
            if chosen is not None:
                pieces[label].update(chosen)
                break


def _known_pieces(factor: Factor, length: Size, known_ranges: KnownRanges) -> Pieces | None:
    """Return known ranges of a factor's dimensions that together have a certain length."""
    dims = sorted(dims_of((factor,)))
    for chosen in itertools.product(*(known_ranges(dim) for dim in dims)):
        pieces = dict(zip(dims, chosen, strict=True))
        if same_size(local_size((factor,), pieces), length):
            return pieces
    return None


def _size_of_other_labels(
    bound: BoundOperator,
    signature: Signature,
    pattern: Pattern,
    label: str,
    pieces: Mapping[str, Pieces],
) -> Size:
    """Return the local size of a tensor dim without one of its labels."""
    return product(
        signature.sizes[other]
        if bound.labels.get(other) is None
        else local_size(bound.labels[other] or (), pieces.get(other, {}))
        for other in spell(pattern)
        if other != label
    )

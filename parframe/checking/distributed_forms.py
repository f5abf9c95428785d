"""Types of operators in a distributed form.

A distributed form (a ring, an all-to-all) gives what the model's operator gives on inputs that are
gathered along the travelling label, so it is typed as if they were gathered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from parframe.checking.checked_model import ModelOperator
from parframe.checking.findings import Fault
from parframe.checking.label_pieces import describe_disagreement
from parframe.checking.local_forms import BoundLocal, plain_form
from parframe.checking.operator_types import OperatorType
from parframe.checking.tensor_types import TensorShard
from parframe.graph import Operator
from parframe.layout import Range, dims_of
from parframe.rules import DistributedForm, Signature
from parframe.rules.signature import Pattern, inputs_with, spell


@attrs.frozen
class DistributedOperator:
    """Operator of the model in a distributed form.

    - ``signature``: the rule's notation for the operator's shapes.
    - ``moved``: the numbers of the inputs that have the travelling label.
    - ``dims``: the dimensions of the travelling label.
    """

    form: DistributedForm
    signature: Signature
    moved: tuple[int, ...]
    dims: frozenset[str]


def find_distributed_form(
    operator: Operator, origin: ModelOperator | None
) -> DistributedOperator | None:
    """Return the distributed form of a device's operator; None if its rule has no such form."""
    if origin is None or origin.bound.rule is None or origin.bound.signature is None:
        return None
    signature = origin.bound.signature
    for form in origin.bound.rule.distributed_forms:
        if form.target == operator.target:
            dims = dims_of(origin.bound.labels.get(form.travels) or ())
            return DistributedOperator(form, signature, inputs_with(signature, form.travels), dims)
    return None


def moved_input_faults(
    origin: ModelOperator, distributed: DistributedOperator, shards: Mapping[int, TensorShard]
) -> Iterator[Fault]:
    """Yield a fault for each moved input that is another part than the first on a device."""
    operator = origin.operator
    pieces = {
        number: _travelling_pieces(shard, distributed.signature.inputs[number], distributed)
        for number, shard in shards.items()
    }
    first, *others = sorted(pieces)
    for number in others:
        if pieces[number] != pieces[first]:
            names = operator.inputs[number], operator.inputs[first]
            yield "type", describe_disagreement(pieces[number], pieces[first], *names)


def _travelling_pieces(
    shard: TensorShard, patterns: Sequence[Pattern], distributed: DistributedOperator
) -> dict[str, Range]:
    """Return the ranges of the travelling label that a device has."""
    return {
        dim: piece
        for position, pattern in enumerate(patterns)
        if distributed.form.travels in spell(pattern)
        for dim, piece in shard.pieces(position).items()
        if dim in distributed.dims
    }


def with_distributed_form(
    operator_type: OperatorType,
    operator: Operator,
    origin: ModelOperator,
    distributed: DistributedOperator,
    shards: Mapping[int, TensorShard],
) -> OperatorType:
    """Return an operator's type with the distributed form as its only form.

    ``shards`` has the device's own part of every input, before communication.
    """
    slots = origin.operator.slots
    more = {
        "travels": tuple(dict.fromkeys(slots[number] for number in distributed.moved)),
        "axes": operator.args["axes"],
        "tag": operator.args["tag"],
    }
    if distributed.form.arguments is not None:
        pieces = _label_pieces(origin, distributed.signature, shards)
        inputs = tuple(shards[number] for number in range(len(slots)))
        local = BoundLocal(
            origin.bound, distributed.signature, inputs, operator_type.outputs, pieces, False
        )
        more.update(distributed.form.arguments(local))
    (plain,) = plain_form(origin.bound, operator_type.outputs)
    form = attrs.evolve(plain, target=distributed.form.target, args={**plain.args, **more})
    return attrs.evolve(operator_type, forms=((form,),))


def _label_pieces(
    origin: ModelOperator, signature: Signature, shards: Mapping[int, TensorShard]
) -> dict[str, dict[str, Range]]:
    """Return the ranges of every label that a device has."""
    pieces: dict[str, dict[str, Range]] = {}
    for number, shard in shards.items():
        for position, pattern in enumerate(signature.inputs[number]):
            for label in spell(pattern):
                dims = dims_of(origin.bound.labels.get(label) or ())
                own = shard.pieces(position).items()
                pieces.setdefault(label, {}).update((d, piece) for d, piece in own if d in dims)
    return pieces

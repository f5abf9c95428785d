"""Types of one operator's outputs, from its rule and the types of its inputs.

Nothing here depends on the call of a block, so the layers of a model share the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from parframe.checking.findings import Fault
from parframe.checking.label_pieces import KnownRanges, label_pieces, output_shards
from parframe.checking.local_forms import ExpectedOperator, local_form, plain_form
from parframe.checking.tensor_types import (
    ContractedRange,
    Contribution,
    PartialTerm,
    TensorShard,
    make_shard,
)
from parframe.dims import BoundOperator
from parframe.layout import Leaf, Pieces, TensorDim
from parframe.rules import Signature, without_addend
from parframe.sizes import Size


@attrs.frozen
class OperatorType:
    """Types of an operator's outputs on a device, and the forms it may have there.

    - ``forms``: the sequences of operators that compute the outputs, the likeliest first.
    - ``contributions``: the contributions to a partial sum; empty where the result is complete.
    - ``reduction``: the reduction of the partial sum, or ``""``.
    """

    outputs: tuple[TensorShard, ...]
    forms: tuple[tuple[ExpectedOperator, ...], ...]
    contributions: Contributions
    reduction: str
    faults: tuple[Fault, ...]


def infer_operator(
    bound: BoundOperator,
    tensor_dims: Mapping[str, tuple[TensorDim, ...]],
    inputs: tuple[TensorShard, ...],
    partial_terms: tuple[tuple[PartialTerm, ...], ...],
    recorded_shapes: tuple[tuple[Size, ...], ...],
    addend_omitted: bool,
    known_ranges: KnownRanges,
) -> OperatorType:
    """Infer the types of one operator's outputs.

    - ``bound``, ``tensor_dims``: the model's operator with its rule, and the tensor dims of its
      block's values.
    - ``inputs``, ``partial_terms``: the part that the device has of every input, and the partial
      terms in it.
    - ``recorded_shapes``: the recorded shapes of the outputs. They give the ranges of labels along
      which all elements are equal.
    - ``addend_omitted``: whether the addend is left out.
    - ``known_ranges``: the ranges of a dimension that other values of the device have.
    """
    signature = bound.signature
    if signature is None:
        return _type_without_rule(bound, tensor_dims, inputs, partial_terms)
    faults: list[Fault] = []
    pieces = label_pieces(bound, signature, inputs, addend_omitted, faults)
    outputs = output_shards(bound, signature, tensor_dims, pieces, recorded_shapes, known_ranges)
    propagated, reduction = propagated_contributions(
        bound, signature, partial_terms, addend_omitted, faults
    )
    contracted = contracted_contributions(bound, signature, pieces)
    if contracted:
        faults.extend(_contraction_faults(signature, propagated, reduction, contracted))
        reduction = signature.reduction
    contributions = multiply(propagated, contracted)
    if contributions and signature.addend is not None and not addend_omitted:
        faults.append(("partial", "the addend (bias) is added to a partial sum"))
    return OperatorType(
        outputs,
        tuple(_forms(bound, inputs, outputs, pieces, addend_omitted)),
        contributions,
        reduction if contributions else "",
        tuple(faults),
    )


def _type_without_rule(
    bound: BoundOperator,
    tensor_dims: Mapping[str, tuple[TensorDim, ...]],
    inputs: tuple[TensorShard, ...],
    partial_terms: tuple[tuple[PartialTerm, ...], ...],
) -> OperatorType:
    """Return the type of an operator that no rule covers: all of its inputs must be whole."""
    operator = bound.site.operator
    outputs = tuple(
        make_shard(tensor_dims[value], [{}] * len(tensor_dims[value])) for value in operator.outputs
    )
    faults: tuple[Fault, ...] = ()
    if any(not shard.is_whole for shard in inputs) or any(partial_terms):
        faults = (("type", f"{operator.target} has no rule, but an input of it is split"),)
    return OperatorType(outputs, (plain_form(bound, outputs),), frozenset(), "", faults)


def _contraction_faults(
    signature: Signature, propagated: Contributions, reduction: str, contracted: Contributions
) -> Iterator[Fault]:
    """Yield the faults of contracting a split dimension of partial inputs."""
    if reduction not in ("", signature.reduction):
        yield "partial", f"a partial {reduction} is an input of a partial {signature.reduction}"
    dims = {part.dim for contribution in contracted for part in contribution}
    if any(part.dim in dims for contribution in propagated for part in contribution):
        yield "partial", "a dimension is contracted whose sum is still partial"


def _forms(
    bound: BoundOperator,
    inputs: tuple[TensorShard, ...],
    outputs: tuple[TensorShard, ...],
    pieces: Mapping[str, Pieces],
    addend_omitted: bool,
) -> Iterator[tuple[ExpectedOperator, ...]]:
    """Yield the forms that the operator may have on the device, the likeliest first."""
    rule, signature = bound.rule, bound.signature
    if addend_omitted and rule is not None and signature is not None:
        bound = attrs.evolve(bound, site=without_addend(rule, bound.site, signature))
        inputs = tuple(shard for i, shard in enumerate(inputs) if i != signature.addend)
    if rule is None or rule.local is None or not any(pieces.values()):
        yield plain_form(bound, outputs)
    for all_split in (False, True):
        form = local_form(bound, inputs, outputs, pieces, all_split)
        if form is not None:
            yield form


Contributions = frozenset[Contribution]


def contracted_contributions(
    bound: BoundOperator, signature: Signature, pieces: Mapping[str, Pieces]
) -> Contributions:
    """Return the ranges of contracted labels that a device sums over; empty if all are whole."""
    result: Contributions = frozenset()
    source = bound.site.operator.name
    for label in sorted(signature.contracted()):
        tensor_dim, own = bound.labels.get(label), pieces.get(label)
        if tensor_dim is not None and own:
            result = multiply(result, _contracted_ranges(tensor_dim, own, f"{source}.{label}"))
    return result


def _contracted_ranges(tensor_dim: TensorDim, own: Pieces, source: str) -> Contributions:
    """Return the product over the factors of a tensor dim; segments are summed one by one."""
    result: Contributions = frozenset()
    for factor in tensor_dim:
        if isinstance(factor, Leaf):
            if factor.dim in own:
                contracted = ContractedRange(source, factor.dim, factor.size, own[factor.dim])
                result = multiply(result, frozenset({(contracted,)}))
            continue
        parts: set[Contribution] = set()
        for number, part in enumerate(factor.parts):
            parts |= _contracted_ranges(part, own, f"{source}[{number}]") or {()}
        if parts != {()}:
            result = multiply(result, frozenset(parts))
    return result


def multiply(left: Contributions, right: Contributions) -> Contributions:
    """Return the products of contributions; an empty side is complete."""
    if not left or not right:
        return left or right
    return frozenset(
        tuple(sorted({*one, *other}, key=lambda contracted: (contracted.source, contracted.dim)))
        for one in left
        for other in right
    )


def propagated_contributions(
    bound: BoundOperator,
    signature: Signature,
    partial_terms: tuple[tuple[PartialTerm, ...], ...],
    addend_omitted: bool,
    faults: list[Fault],
) -> tuple[Contributions, str]:
    """Return the contributions of partial inputs to the output, and their reduction.

    A fault is added if the operator is not linear in its partial inputs.
    """
    skipped = signature.addend if addend_omitted else None
    partial = frozenset(i for i, terms in enumerate(partial_terms) if terms and i != skipped)
    if not partial:
        return frozenset(), ""
    found = frozenset(c for i in partial for term in partial_terms[i] for c in term.contributions)
    reductions = {term.reduction for i in partial for term in partial_terms[i]}
    linear = reductions == {"sum"} and partial in signature.linear
    moves = (
        signature.moves
        and len(reductions) == 1
        and (len(partial) == 1 if len(partial_terms) == 1 else partial in signature.linear)
    )
    if not linear and not moves:
        names = ", ".join(bound.site.operator.inputs[i] for i in sorted(partial))
        target = bound.site.operator.target
        faults.append(("partial", f"{names} is a partial sum, and {target} is not linear in it"))
    return found, min(reductions)

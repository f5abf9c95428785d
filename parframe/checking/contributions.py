"""Contributions of a device to partial sums: products of the ranges that it has summed over."""

from __future__ import annotations

from collections.abc import Mapping

from parframe.checking.findings import Fault
from parframe.checking.tensor_types import ContractedRange, Contribution, PartialTerm
from parframe.dims import BoundOperator
from parframe.layout import Leaf, Pieces, TensorDim
from parframe.rules import Signature

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

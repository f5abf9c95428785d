"""Check that a program, except for its attention, treats every position by itself."""

from __future__ import annotations

from collections.abc import Iterator, Set

import sympy

from parframe.errors import ParframeError
from parframe.graph import Arg, Operator, Tensor, rename_arg
from parframe.plan import Program
from parframe.rules import Signature, Site, bind
from parframe.rules.communication import PLAN_OPERATORS
from parframe.rules.signature import labels_of
from parframe.rules.table import communicates, model_operator, rule_of
from parframe.sizes import symbols_of

Tensors = tuple[Tensor, ...]

NO_CACHE_HINT = (
    "run it without a cache (--no-cache, cached=False), which recomputes all tokens at every step"
)
"""Hint for a model that cannot be run with a cache."""


def check_positionwise(program: Program, lengths: Set[str], attentions: Set[str]) -> None:
    """Check that no operator but attention reads other positions than that of its result.

    ``lengths`` are the symbols that are, or depend on, the length of the sequence; operators named
    in ``attentions`` are not checked. An error of kind ``run`` names the first operator that reads
    other positions or that has no rule.
    """
    seen: set[object] = set()
    for operator in program.operators:
        if operator.name in attentions or _only_moves(operator):
            continue
        key = _signature_key(program, operator)
        if key not in seen:
            seen.add(key)
            _check_operator(program, model_operator(operator), lengths)


def _only_moves(operator: Operator) -> bool:
    """Return whether an operator communicates, or slices a value for a rank."""
    return communicates(operator) or operator.target in PLAN_OPERATORS


def _signature_key(program: Program, operator: Operator) -> object:
    """Return a key that is equal for operators whose check gives the same result."""
    tensors = (*operator.inputs, *operator.outputs)
    blank = dict.fromkeys(operator.inputs, "")
    shapes = tuple(program.tensors[name].shape for name in tensors)
    args = tuple((slot, repr(rename_arg(arg, blank))) for slot, arg in operator.args.items())
    return operator.target, operator.slots, shapes, args


def _check_operator(program: Program, operator: Operator, lengths: Set[str]) -> None:
    inputs = tuple(program.tensors[name] for name in operator.inputs)
    outputs = tuple(program.tensors[name] for name in operator.outputs)
    tensors = (*inputs, *outputs)
    has_lengths = any(symbols_of(size) & lengths for tensor in tensors for size in tensor.shape)
    if not has_lengths and not any(symbols_of(size) & lengths for size in _sizes(operator)):
        return
    rule = rule_of(operator)
    signature = bind(rule, Site(operator, inputs, outputs)) if rule is not None else None
    if signature is None:
        raise no_cache_error(operator, "no rule says how it treats positions")
    labels = _find_length_labels(signature, inputs, outputs, lengths)
    if labels & signature.unsplittable():
        raise no_cache_error(operator, "it reads several positions at once")
    only_shape = labels_of(signature.outputs) <= signature.free
    if labels & (signature.contracted() | signature.dropped) and not only_shape:
        raise no_cache_error(operator, "it sums over positions or drops some")
    shapes = {size for tensor in tensors for size in tensor.shape}
    for size in _sizes(operator):
        if symbols_of(size) & lengths and size not in shapes:
            raise no_cache_error(operator, "it computes with the length of the sequence")


def _find_length_labels(
    signature: Signature, inputs: Tensors, outputs: Tensors, lengths: Set[str]
) -> frozenset[str]:
    """Return the labels of all dims whose size depends on the length of the sequence.

    Labels of constant size in a dim that is a product of labels are left out.
    """
    found: set[str] = set()
    for tensors, patterns in ((inputs, signature.inputs), (outputs, signature.outputs)):
        for tensor, dims in zip(tensors, patterns, strict=True):
            for size, dim in zip(tensor.shape, dims, strict=True):
                if symbols_of(size) & lengths:
                    found |= {
                        label
                        for label in labels_of(((dim,),))
                        if symbols_of(signature.sizes.get(label, size)) & lengths
                    }
    return frozenset(found)


def _sizes(operator: Operator) -> Iterator[sympy.Expr]:
    """Yield the symbolic sizes in the arguments of an operator."""
    waiting: list[Arg] = list(operator.args.values())
    while waiting:
        arg = waiting.pop()
        if isinstance(arg, tuple):
            waiting.extend(arg)
        elif isinstance(arg, sympy.Expr):
            yield arg


def no_cache_error(operator: Operator, reason: str) -> ParframeError:
    """Return the error for an operator that prevents running with a cache."""
    return ParframeError(
        "run",
        f"{operator.name} ({operator.module or 'the model'})",
        f"the model cannot be run with a key-value cache: {reason} ({operator.target})",
        NO_CACHE_HINT,
    )

"""Whether a program treats every position of the sequence by itself, attention left out."""

from __future__ import annotations

from collections.abc import Iterator, Set

import attrs
import sympy

from parframe.errors import ParframeError
from parframe.graph import Arg, Operator, Tensor, rename
from parframe.plan import COMMUNICATION, Program
from parframe.rules import Signature, Site, bind
from parframe.rules.signature import letters
from parframe.rules.table import rule_for
from parframe.sizes import symbols_of

Tensors = tuple[Tensor, ...]

WITHOUT_CACHE = (
    "run it without a cache (--no-cache, cached=False), where every token computes all before it "
    "again"
)
"""What else can be done with a model that cannot keep anything."""

_LOCAL = frozenset({"parframe.embedding", "parframe.shard", "parframe.local_experts"})
"""Operators of device programs alone that treat every position by itself."""


def check_positionwise(program: Program, lengths: Set[str], attentions: Set[str]) -> None:
    """Make sure that no operator but attention looks at other positions than its result's.

    Parameters
    ----------
    program
        A device's program.
    lengths
        The symbols that are, or depend on, the length of the sequence.
    attentions
        The names of the operators that are left out.

    Raises
    ------
    ParframeError
        Of kind ``run``, with the first operator that does.
    """
    seen: set[object] = set()
    for operator in program.operators:
        if operator.name in attentions or operator.target in COMMUNICATION | _LOCAL:
            continue
        key = _form(program, operator)
        if key not in seen:
            seen.add(key)
            _check(program, _of_model(operator), lengths)


def _of_model(operator: Operator) -> Operator:
    """The operator that rules know, of one that exists in device programs alone."""
    if operator.target in ("parframe.amax", "parframe.amin"):
        return attrs.evolve(operator, target=f"aten.{operator.target.split('.')[1]}.default")
    if operator.target == "parframe.guarded":
        args = {slot: arg for slot, arg in operator.args.items() if slot not in ("target", "shape")}
        return attrs.evolve(operator, target=str(operator.args["target"]), args=args)
    return operator


def _form(program: Program, operator: Operator) -> object:
    """What tells operators apart here: equal ones are looked at once."""
    tensors = (*operator.inputs, *operator.outputs)
    blank = dict.fromkeys(operator.inputs, "")
    shapes = tuple(program.tensors[name].shape for name in tensors)
    plain = tuple((slot, repr(rename(arg, blank))) for slot, arg in operator.args.items())
    return operator.target, operator.slots, shapes, plain


def _check(program: Program, operator: Operator, lengths: Set[str]) -> None:
    taken = tuple(program.tensors[name] for name in operator.inputs)
    given = tuple(program.tensors[name] for name in operator.outputs)
    sized = [t for t in (*taken, *given) if any(symbols_of(s) & lengths for s in t.shape)]
    if not sized and not any(symbols_of(size) & lengths for size in _numbers(operator)):
        return
    rule = rule_for(operator.target)
    signature = bind(rule, Site(operator, taken, given)) if rule is not None else None
    if signature is None:
        raise refused(operator, "no rule tells how it treats positions")
    borne = _letters_of_lengths(signature, taken, given, lengths)
    if borne & signature.unsplittable():
        raise refused(operator, "it looks at several positions at once")
    ignored = letters(signature.outputs) <= signature.free  # only its shape is looked at
    if borne & (signature.contracted() | signature.dropped) and not ignored:
        raise refused(operator, "it sums or drops positions")
    shapes = {size for tensor in (*taken, *given) for size in tensor.shape}
    for size in _numbers(operator):
        if symbols_of(size) & lengths and size not in shapes:
            raise refused(operator, "it computes with the length of the sequence")


def _letters_of_lengths(
    signature: Signature, taken: Tensors, given: Tensors, lengths: Set[str]
) -> frozenset[str]:
    """The letters of all axes whose size depends on the length of the sequence.

    Of an axis that is a product, those of known size are left out.
    """
    found: set[str] = set()
    pairs = ((taken, signature.inputs), (given, signature.outputs))
    for tensors, patterns in pairs:
        for tensor, axes in zip(tensors, patterns, strict=True):
            for size, axis in zip(tensor.shape, axes, strict=True):
                if symbols_of(size) & lengths:
                    found |= {
                        letter
                        for letter in letters(((axis,),))
                        if symbols_of(signature.sizes.get(letter, size)) & lengths
                    }
    return frozenset(found)


def _numbers(operator: Operator) -> Iterator[sympy.Expr]:
    waiting: list[Arg] = list(operator.args.values())
    while waiting:
        arg = waiting.pop()
        if isinstance(arg, tuple):
            waiting.extend(arg)
        elif isinstance(arg, sympy.Expr):
            yield arg


def refused(operator: Operator, why: str) -> ParframeError:
    """The error for an operator that cannot be run with a cache."""
    return ParframeError(
        "run",
        f"{operator.name} ({operator.module or 'the model'})",
        f"the model cannot be run with a key-value cache: {why} ({operator.target})",
        WITHOUT_CACHE,
    )

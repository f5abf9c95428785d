"""Rewrites that make an exported program plain: no copies, no no-ops, one form for each thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import sympy
import torch

from parframe.errors import ParframeError
from parframe.fold import indexed_scope
from parframe.graph import Arg, Operator, Parameter, Ref, Tensor
from parframe.loading.exported_program import decode
from parframe.loading.flat_graph import Program, live, replace
from parframe.loading.in_place import functional
from parframe.ops.schema import overload

_LONGEST = 2**63 - 1

_COPIES = frozenset(
    f"aten.{name}"
    for name in (
        "alias.default", "clone.default", "contiguous.default", "detach.default",
        "detach_.default", "lift_fresh.default", "lift_fresh_copy.default",
    )
)  # fmt: skip
"""Operators that give their argument back."""

_DROPOUTS = frozenset(f"aten.{name}.default" for name in ("dropout", "feature_dropout"))

_CASTS = frozenset(
    f"aten.{name}"
    for name in (
        "to.dtype", "to.dtype_layout", "to.device", "to.other", "to.prim_other",
        "_to_copy.default", "type_as.default",
    )
)  # fmt: skip

_SHAPED: Mapping[str, str] = {
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten.view_copy.default": "aten.reshape.default",
    "aten.reshape.default": "aten.reshape.default",
    "aten.expand.default": "aten.expand.default",
    "aten.expand_copy.default": "aten.expand.default",
    "aten.broadcast_to.default": "aten.expand.default",
    "aten.expand_as.default": "aten.expand.default",
    "aten.reshape_as.default": "aten.reshape.default",
    "aten.view_as.default": "aten.reshape.default",
}
"""Operators that give what they look at another shape, and their plain form, which names it.

Views are reshapes: what they look at need not lie in one piece once copies are left out.
"""

_SHAPE_SLOT: Mapping[str, str] = {"aten.reshape.default": "shape", "aten.expand.default": "size"}
"""The argument that names the shape, in the plain form."""


def simplify(program: Program) -> Program:
    """The program in its plain form; what it computes stays the same.

    Raises
    ------
    AliasedWriteError
        If an operator writes into a tensor that something else may look at.
    ParframeError
        If an operator draws random numbers.
    """
    plain = live(functional(_without_copies(_canonical(program))))
    return _certain(live(_share_tensors(_share_constants(_sliced(plain)))))


def _certain(program: Program) -> Program:
    """The program itself, if it draws no random numbers."""
    for operator in program.operators:
        if _draws(operator):
            raise ParframeError(
                "load",
                f"{operator.module or 'the model'} ({operator.source})",
                f"{operator.target} draws random numbers, so that no two runs are equal",
                "put the model into eval mode, or give the numbers as an input",
            )
    return program


def _canonical(program: Program) -> Program:
    """One form for casts, ranges, views and slices, sizes written out."""
    return attrs.evolve(
        program, operators=tuple(_canonical_operator(op, program) for op in program.operators)
    )


def _canonical_operator(operator: Operator, program: Program) -> Operator:
    result = program.tensors[operator.outputs[0]]
    if operator.target in _CASTS:
        args: dict[str, Arg] = {"self": operator.args["self"], "dtype": result.dtype}
        return attrs.evolve(operator, target="aten.to.dtype", args=args)
    if operator.target in _SHAPED:
        target = _SHAPED[operator.target]
        args = {"self": operator.args["self"], _SHAPE_SLOT[target]: result.shape}
        return attrs.evolve(operator, target=target, args=args)
    if operator.target == "aten.slice.Tensor":
        return _canonical_slice(operator, program, result)
    if operator.target.startswith("aten.arange.") and _starts_at_zero(operator):
        args = {"end": operator.args["end"], "dtype": result.dtype}
        return attrs.evolve(operator, target="aten.arange.default", args=args)
    if not operator.inputs and "dtype" not in operator.args:
        return attrs.evolve(operator, args={**operator.args, "dtype": result.dtype})
    return operator


def _canonical_slice(operator: Operator, program: Program, result: Tensor) -> Operator:
    """A slice with its start counted from the front and its end within the axis."""
    whole = program.tensor(operator.inputs[0])
    dim: Any = operator.args.get("dim", 0)
    start: Any = operator.args.get("start", 0)
    size = whole.shape[dim]
    step: Any = operator.args.get("step", 1)
    end: Any = operator.args.get("end", _LONGEST)
    if step == 1 and end == _LONGEST and start != 0:
        start = _plain(size - result.shape[dim])
    elif isinstance(start, int) and start < 0:
        start = max(size + start, 0) if isinstance(size, int) else size + start
    elif not isinstance(start, int) and start.is_negative:
        start = _plain(sympy.Max(size + start, 0))
    if step == 1:
        end = _plain(start + result.shape[dim])
    elif end == _LONGEST:
        end = size
    args: dict[str, Arg] = {
        "self": operator.args["self"], "dim": dim, "start": start, "end": end, "step": step,
    }  # fmt: skip
    return attrs.evolve(operator, args=args)


def _sliced(program: Program) -> Program:
    """Slices where an axis is indexed by constant numbers that follow each other."""
    return attrs.evolve(
        program,
        operators=tuple(
            _index_as_slice(op, program) if op.target == "aten.index.Tensor" else op
            for op in program.operators
        ),
    )


def _index_as_slice(operator: Operator, program: Program) -> Operator:
    indices: Any = operator.args["indices"]
    chosen = [(axis, ref.name) for axis, ref in enumerate(indices) if isinstance(ref, Ref)]
    constant = program.parameters.get(chosen[0][1]) if len(chosen) == 1 else None
    if constant is None or constant.data is None or len(constant.shape) != 1:
        return operator
    axis = chosen[0][0]
    size = program.tensor(operator.inputs[0]).shape[axis]
    numbers = decode(constant).tolist()
    if constant.dtype == "bool" or not numbers or not isinstance(size, int):
        return operator
    first = numbers[0] + size if numbers[0] < 0 else numbers[0]
    if [n + size if n < 0 else n for n in numbers] != list(range(first, first + len(numbers))):
        return operator
    args: dict[str, Arg] = {
        "self": operator.args["self"], "dim": axis, "start": first,
        "end": first + len(numbers), "step": 1,
    }  # fmt: skip
    return attrs.evolve(operator, target="aten.slice.Tensor", args=args)


def _plain(size: Any) -> Any:
    return int(size) if not isinstance(size, int) and size.is_Integer else size


def _without_copies(program: Program) -> Program:
    """Leave out operators that give their argument back unchanged."""
    kept = []
    same: dict[str, str] = {}
    for operator in program.operators:
        original = _unchanged(operator, program)
        if original is None:
            kept.append(operator)
        else:
            same[operator.outputs[0]] = original
    return replace(attrs.evolve(program, operators=tuple(kept)), same)


def _unchanged(operator: Operator, program: Program) -> str | None:
    """The argument that an operator gives back as it is, if it does."""
    if not operator.inputs or len(operator.outputs) != 1:
        return None
    name = operator.inputs[0]
    if operator.target in _COPIES:
        return name
    if operator.target in _DROPOUTS:
        return None if operator.args["train"] else name
    test = _NEUTRAL.get(operator.target)
    if test is None or not test(operator):
        return None
    before, after = program.tensor(name), program.tensors[operator.outputs[0]]
    return name if (before.shape, before.dtype) == (after.shape, after.dtype) else None


def _adds_nothing(operator: Operator) -> bool:
    return _is_number(operator.args["other"], 0)


def _scales_nothing(operator: Operator) -> bool:
    return _is_number(operator.args["other"], 1)


def _starts_at_zero(operator: Operator) -> bool:
    return operator.args.get("start", 0) == 0 and operator.args.get("step", 1) == 1


def _always(_: Operator) -> bool:
    return True


def _is_number(arg: Arg, number: int) -> bool:
    return isinstance(arg, int | float) and not isinstance(arg, bool) and arg == number


_NEUTRAL: Mapping[str, Callable[[Operator], bool]] = {
    "aten.add.Tensor": _adds_nothing,
    "aten.sub.Tensor": _adds_nothing,
    "aten.mul.Tensor": _scales_nothing,
    "aten.div.Tensor": _scales_nothing,
    "aten.slice.Tensor": _starts_at_zero,
    "aten.to.dtype": _always,
    "aten.reshape.default": _always,
    "aten.expand.default": _always,
    "aten.flatten.using_ints": _always,
}
"""Operators that do nothing where their result has the argument's shape and dtype, and a test."""


_QUIET: Mapping[str, Arg] = {"dropout_p": 0.0, "train": False, "training": False, "p": 0.0}
"""Arguments with which an operator that may draw random numbers draws none."""


def _draws(operator: Operator) -> bool:
    """Whether an operator draws random numbers, so that no two calls of it are the same."""
    try:
        tags = overload(operator.target).tags
    except ParframeError:  # an archive may name an operator that is not registered here
        return False
    return torch.Tag.nondeterministic_seeded in tags and not any(
        operator.args.get(slot) == quiet for slot, quiet in _QUIET.items()
    )


def _share_constants(program: Program) -> Program:
    """Compute once, and first, what several parts compute from no tensor at all (positions)."""
    groups: dict[Any, list[Operator]] = {}
    for operator in program.operators:
        if not operator.inputs and len(operator.outputs) == 1 and not _draws(operator):
            key = (operator.target, *((k, type(v).__name__, v) for k, v in operator.args.items()))
            groups.setdefault(key, []).append(operator)
    same: dict[str, str] = {}
    first: list[Operator] = []
    for group in groups.values():
        scopes = {indexed_scope(operator.module) for operator in group}
        if len(group) == 1:
            continue
        same.update((op.outputs[0], group[0].outputs[0]) for op in group[1:])
        if len(scopes) > 1:
            first.append(attrs.evolve(group[0], module=_shared_path(op.module for op in group)))
    hoisted = {operator.outputs[0] for operator in first}
    rest = [
        operator
        for operator in program.operators
        if operator.outputs[0] not in same and operator.outputs[0] not in hoisted
    ]
    return replace(attrs.evolve(program, operators=(*first, *rest)), same)


def _share_tensors(program: Program) -> Program:
    """Keep constants of equal contents once, under names of their own."""
    kept: dict[Any, Parameter] = {}
    same: dict[str, str] = {}
    rest: dict[str, Parameter] = {}
    for name, parameter in program.parameters.items():
        if parameter.kind != "constant":
            rest[name] = parameter
            continue
        key = (parameter.shape, parameter.dtype, parameter.data)
        fresh = f"constant.{len(kept)}"
        same[name] = kept.setdefault(key, attrs.evolve(parameter, name=fresh)).name
    rest.update((parameter.name, parameter) for parameter in kept.values())
    return replace(attrs.evolve(program, parameters=rest), same)


def _shared_path(modules: Iterable[str]) -> str:
    """The path that all of these share, cut before the first index."""
    parts = [module.split(".") for module in modules]
    shared: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1 or names[0].isdigit():
            break
        shared.append(names[0])
    return ".".join(shared)

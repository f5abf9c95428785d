"""A program without operators that write into their arguments."""

from __future__ import annotations

from collections import Counter

import attrs
import torch

from parframe.graph import Operator, leaves_of
from parframe.loading.flat_graph import Program
from parframe.ops.schema import overload

_FRESH = frozenset(
    f"aten.{name}"
    for name in (
        "linear.default", "matmul.default", "conv1d.default", "conv2d.default", "conv3d.default",
        "batch_norm.default", "layer_norm.default", "group_norm.default", "max_pool2d.default",
        "adaptive_avg_pool2d.default",
    )
)  # fmt: skip
"""Composite operators that never return one of their arguments."""


class AliasedWriteError(Exception):
    """An operator writes into a tensor that something else may look at."""


def functional(program: Program) -> Program:
    """The program with ``add_`` as ``add`` and so on.

    Raises
    ------
    AliasedWriteError
        If a tensor that is written to is not fresh, or something else uses it.
    """
    if not any(_writes(operator) for operator in program.operators):
        return program
    makers = {name: op for op in program.operators for name in op.outputs}
    users = Counter(name for op in program.operators for name in set(op.inputs))
    users.update(leaves_of(program.outputs))
    operators = []
    for operator in program.operators:
        if _writes(operator):
            _check_alone(operator, program, makers, users)
            operator = attrs.evolve(operator, target=_without_write(operator))
        operators.append(operator)
    return attrs.evolve(program, operators=tuple(operators))


def _writes(operator: Operator) -> bool:
    return overload(operator.target)._schema.is_mutable


def _without_write(operator: Operator) -> str:
    """The operator of the same name without the underscore, with the same arguments."""
    schema = overload(operator.target)._schema
    namespace, name, which = operator.target.split(".")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    target = getattr(packet, which, None)
    if target is None or target._schema.is_mutable:
        raise AliasedWriteError(operator.target)
    if [a.name for a in target._schema.arguments] != [a.name for a in schema.arguments]:
        raise AliasedWriteError(operator.target)
    return f"{namespace}.{name.removesuffix('_')}.{which}"


def _check_alone(
    operator: Operator,
    program: Program,
    makers: dict[str, Operator],
    users: Counter[str],
) -> None:
    """Refuse a write to a tensor that is not fresh, is used elsewhere, or changes its form."""
    name = operator.inputs[0]
    maker = makers.get(name)
    if maker is None or users[name] != 1 or _may_alias(maker):
        raise AliasedWriteError(operator.target)
    before, after = program.tensor(name), program.tensor(operator.outputs[0])
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        raise AliasedWriteError(operator.target)


def _may_alias(maker: Operator) -> bool:
    """Whether an operator's result may share memory with something else."""
    if maker.target in _FRESH or _writes(maker):
        return False
    target = overload(maker.target)
    composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return composite or any(result.alias_info is not None for result in target._schema.returns)

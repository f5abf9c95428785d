"""In-place operators, replaced by their functional forms."""

from __future__ import annotations

from collections import Counter

import attrs
import torch

from parframe.graph import Operator, output_leaves
from parframe.loading.flat_graph import FlatGraph
from parframe.ops.schema import find_overload
from parframe.rules.table import rule_of


class AliasedWriteError(Exception):
    """In-place operator on a tensor that another operator may read."""


def replace_in_place(graph: FlatGraph) -> FlatGraph:
    """Replace in-place operators by their functional forms, ``add_`` by ``add``.

    Raises
    ------
    AliasedWriteError
        If an operator writes into a tensor that may share memory or that another operator reads.
    """
    if not any(_is_in_place(operator) for operator in graph.operators):
        return graph
    producers = {name: op for op in graph.operators for name in op.outputs}
    uses = Counter(name for op in graph.operators for name in set(op.inputs))
    uses.update(output_leaves(graph.outputs))
    operators = list(graph.operators)
    for place, operator in enumerate(operators):
        if _is_in_place(operator):
            _check_unshared(operator, graph, producers, uses)
            operators[place] = attrs.evolve(operator, target=_functional_target(operator))
    return attrs.evolve(graph, operators=tuple(operators))


def _is_in_place(operator: Operator) -> bool:
    return find_overload(operator.target)._schema.is_mutable


def _functional_target(operator: Operator) -> str:
    """Return the operator of the same name without the underscore, with the same arguments."""
    schema = find_overload(operator.target)._schema
    namespace, name, overload_name = operator.target.split(".")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    target = getattr(packet, overload_name, None)
    names = [argument.name for argument in schema.arguments]
    if (
        target is None
        or target._schema.is_mutable
        or [argument.name for argument in target._schema.arguments] != names
    ):
        raise AliasedWriteError(operator.target)
    return f"{namespace}.{name.removesuffix('_')}.{overload_name}"


def _check_unshared(
    operator: Operator, graph: FlatGraph, producers: dict[str, Operator], uses: Counter[str]
) -> None:
    """Refuse a write to a tensor that may be shared, is used elsewhere, or changes its shape."""
    name = operator.inputs[0]
    producer = producers.get(name)
    before, after = graph.tensor(name), graph.tensor(operator.outputs[0])
    changed = (before.shape, before.dtype) != (after.shape, after.dtype)
    if producer is None or uses[name] != 1 or changed or _may_alias(producer):
        raise AliasedWriteError(operator.target)


def _may_alias(producer: Operator) -> bool:
    """Return whether an operator's result may share memory with another tensor."""
    rule = rule_of(producer)
    if (rule is not None and rule.fresh) or _is_in_place(producer):
        return False
    target = find_overload(producer.target)
    composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return composite or any(result.alias_info is not None for result in target._schema.returns)

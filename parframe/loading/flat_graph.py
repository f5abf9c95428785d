"""Flat graph: all operators of a model in order, before equal layers are folded into blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from parframe.fold import fold
from parframe.graph import (
    Input,
    Operator,
    OperatorGraph,
    Parameter,
    Tensor,
    map_outputs,
    output_leaves,
    rename_arg,
)
from parframe.loading.latent_cache import cache_latents


@attrs.frozen
class FlatGraph:
    """Operators in order of execution, with their tensors, inputs, parameters and outputs."""

    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: Mapping[str, Input]
    parameters: Mapping[str, Parameter]
    outputs: Any
    remarks: tuple[str, ...] = ()

    def tensor(self, name: str) -> Tensor:
        """Return the shape and dtype of a tensor, an input or a parameter."""
        for group in (self.tensors, self.inputs, self.parameters):
            if name in group:
                return group[name]
        raise KeyError(name)


def replace_values(graph: FlatGraph, names: Mapping[str, str]) -> FlatGraph:
    """Replace values by others that are equal to them, and may themselves be replaced."""
    final: dict[str, str] = {}
    for name in names:
        target = names[name]
        while target in names:
            target = names[target]
        final[name] = target
    return attrs.evolve(
        graph,
        operators=tuple(
            attrs.evolve(op, args={slot: rename_arg(arg, final) for slot, arg in op.args.items()})
            for op in graph.operators
        ),
        outputs=map_outputs(graph.outputs, final),
    )


def remove_unused(graph: FlatGraph) -> FlatGraph:
    """Remove the operators and parameters that the outputs do not depend on."""
    needed = set(output_leaves(graph.outputs))
    kept: list[Operator] = []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs):
            kept.append(operator)
            needed.update(operator.inputs)
    computed = {name for operator in kept for name in operator.outputs}
    return attrs.evolve(
        graph,
        operators=tuple(reversed(kept)),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in computed},
        parameters={name: p for name, p in graph.parameters.items() if name in needed},
    )


def to_operator_graph(graph: FlatGraph, source: str = "") -> OperatorGraph:
    """Fold equal layers into blocks, and choose the narrowest KV cache of each."""
    fields = {field.name: getattr(graph, field.name) for field in attrs.fields(FlatGraph)}
    return cache_latents(fold(**fields, source=source))

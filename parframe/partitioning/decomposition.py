"""Decomposition of operators over a whole dim into simpler ones, if the dim is split.

A softmax or a norm over a split dim then reduces a sum or a maximum instead of gathering the dim.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.dims import BoundOperator
from parframe.graph import Block, Operator, OperatorGraph, Tensor


def expand(
    graph: OperatorGraph,
    bound: Mapping[str, Mapping[str, BoundOperator]],
    wanted: Mapping[str, frozenset[str]],
) -> OperatorGraph:
    """Decompose the ``wanted`` operators of blocks; return the graph itself if no rule can."""
    blocks = dict(graph.blocks)
    for name, operators in wanted.items():
        blocks[name] = _expanded(blocks[name], bound[name], operators)
    changed = any(blocks[name] is not block for name, block in graph.blocks.items())
    return attrs.evolve(graph, blocks=blocks) if changed else graph


def _expanded(block: Block, bound: Mapping[str, BoundOperator], wanted: frozenset[str]) -> Block:
    operators: list[Operator] = []
    tensors: dict[str, Tensor] = {}
    for operator in block.operators:
        rule = bound[operator.name].rule
        simpler = (
            rule.decompose(bound[operator.name].site)
            if operator.name in wanted and rule is not None and rule.decompose is not None
            else None
        )
        if simpler is None:
            operators.append(operator)
        else:
            operators.extend(simpler[0])
            tensors.update(simpler[1])
    if not tensors:
        return block
    return attrs.evolve(block, operators=tuple(operators), tensors={**block.tensors, **tensors})

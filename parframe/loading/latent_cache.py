"""Choice of what a KV cache stores: keys and values, or the latents that they are computed from."""

from __future__ import annotations

import math

import attrs
import networkx

from parframe.graph import Block, Operator, OperatorGraph, State
from parframe.rules import Signature, Site, bind
from parframe.rules.signature import labels_of
from parframe.rules.table import rule_for, state_of
from parframe.sizes import evaluate, symbols_of

_SOURCE, _SINK = ("", "source"), ("", "sink")
_NOMINAL_SIZE = 64


def cache_latents(graph: OperatorGraph) -> OperatorGraph:
    """Store in each KV cache the narrowest values from which keys and values can be computed.

    A model with multi-head latent attention (DeepSeek-V2, 2024) computes keys and values from a
    latent that is much narrower. Its cache stores the latent. The latent is found as a minimum cut
    between the layer's inputs and its keys and values, among the values that have one entry for
    each position and are computed from entries of the same position only.
    """
    blocks = {name: _cache_latents_of_block(block) for name, block in graph.blocks.items()}
    return attrs.evolve(graph, blocks=blocks)


def _cache_latents_of_block(block: Block) -> Block:
    states: list[State] = []
    for operator in block.operators:
        slots = state_of(operator)
        wide = [operator.inputs[operator.slots.index(slot)] for slot in slots]
        latents = _find_latents(block, operator, wide) if wide else []
        names = [f"latent{number or ''}" for number in range(len(latents))] or slots
        states.extend(
            State(f"{operator.name}.{name}", value)
            for name, value in zip(names, latents or wide, strict=True)
        )
    return attrs.evolve(block, states=tuple(states))


def _find_latents(block: Block, operator: Operator, wide: list[str]) -> list[str]:
    """Find the values to store instead of keys and values, or none if those are the narrowest."""
    dims = _position_dims(block, operator, wide)
    network = networkx.DiGraph()
    for value in dims:
        network.add_edge((value, "in"), (value, "out"), capacity=_width(block, value))
    for value in wide:
        network.add_edge((value, "out"), _SINK)
    producers = {output: op for op in block.operators for output in op.outputs}
    for value, dim in dims.items():
        sources = _same_position_inputs(block, producers.get(value), value, dim)
        if sources is None:
            network.add_edge(_SOURCE, (value, "in"))
        for other in sources or {}:
            network.add_edge((other, "out"), (value, "in"))
    if _SOURCE not in network or _SINK not in network:
        return []
    # of equal cuts networkx returns the one nearest to the sink, which recomputes least
    least, (far, _) = networkx.minimum_cut(network, _SOURCE, _SINK)
    widest_input = max((_width(block, value) for value in block.inputs), default=0)
    if least >= min(widest_input, sum(_width(block, value) for value in dict.fromkeys(wide))):
        return []
    return [value for value in dims if (value, "in") in far and (value, "out") not in far]


def _position_dims(block: Block, operator: Operator, wide: list[str]) -> dict[str, int]:
    """Return the values from which keys and values are computed, and their dim of positions."""
    producers = {output: op for op in block.operators for output in op.outputs}
    signature = _signature(block, operator)
    dims: dict[str, int] = {}
    if signature is None:
        return dims
    cached = [(v, p) for v, p in zip(operator.inputs, signature.inputs, strict=True) if v in wide]
    shared = frozenset.intersection(*(labels_of((patterns,)) for _, patterns in cached))
    positions = shared - labels_of(signature.outputs)
    waiting = [
        (value, dim)
        for value, patterns in cached
        for dim, labels in enumerate(patterns)
        if set(labels) <= signature.whole and set(labels) & positions
    ]
    while waiting:
        value, dim = waiting.pop()
        if value not in dims:
            dims[value] = dim
            sources = _same_position_inputs(block, producers.get(value), value, dim)
            waiting.extend((sources or {}).items())
    return {value: dims[value] for value in block.tensors if value in dims}


def _same_position_inputs(
    block: Block, producer: Operator | None, value: str, dim: int
) -> dict[str, int] | None:
    """Return the inputs that a value's entry for a position is computed from, with their dims.

    The result is None if the value is an input of the block, or is computed from entries of other
    positions too.
    """
    signature = _signature(block, producer) if producer is not None else None
    if producer is None or signature is None:
        return None
    pattern = signature.outputs[producer.outputs.index(value)][dim]
    if len(pattern) != 1 or not isinstance(pattern[0], str):
        return None
    label = pattern[0]
    if label in signature.free:
        return {}
    if label in signature.whole or label not in labels_of(signature.inputs):
        return None
    inputs: dict[str, int] = {}
    for name, patterns in zip(producer.inputs, signature.inputs, strict=True):
        positions = [position for position, each in enumerate(patterns) if each == (label,)]
        if label in labels_of((patterns,)) and len(positions) != 1:
            return None
        inputs.update((name, position) for position in positions)
    return inputs


def _signature(block: Block, operator: Operator) -> Signature | None:
    rule = rule_for(operator.target)
    if rule is None:
        return None
    inputs = tuple(block.tensors[value] for value in operator.inputs)
    outputs = tuple(block.tensors[value] for value in operator.outputs)
    return bind(rule, Site(operator, inputs, outputs))


def _width(block: Block, value: str) -> int:
    """Return the elements of a value at nominal sizes, a multiple of those of one position."""
    return math.prod(
        evaluate(size, dict.fromkeys(symbols_of(size), _NOMINAL_SIZE))
        for size in block.tensors[value].shape
    )

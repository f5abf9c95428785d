"""Caches no wider than need be: keys and values, or the latents that they are computed from."""

from __future__ import annotations

import math

import attrs
import networkx

from parframe.fold import STATEFUL
from parframe.graph import Block, Operator, OperatorGraph, State
from parframe.rules import Signature, Site, bind
from parframe.rules.signature import letters
from parframe.rules.table import rule_for
from parframe.sizes import evaluate, symbols_of

_SOURCE, _SINK = ("", "source"), ("", "sink")
_NOMINAL = 64


def narrowed(graph: OperatorGraph) -> OperatorGraph:
    """The graph with the narrowest caches that its keys and values follow from.

    A model with multi-head latent attention (DeepSeek-V2, 2024) computes them for every position
    from a latent that is much narrower; then the latent is what is kept. It is found as a minimum
    cut between what the layer is given and its keys and values, among the values that have one
    entry for each position and are computed from entries of the same position alone.
    """
    blocks = {name: _narrowed_block(block) for name, block in graph.blocks.items()}
    return attrs.evolve(graph, blocks=blocks)


def _narrowed_block(block: Block) -> Block:
    states: list[State] = []
    for operator in block.operators:
        slots = STATEFUL.get(operator.target, ())
        wide = [operator.inputs[operator.slots.index(slot)] for slot in slots]
        kept = _latents(block, operator, wide) if wide else []
        if kept:
            names = [f"latent{number or ''}" for number in range(len(kept))]
            states.extend(
                State(f"{operator.name}.{name}", value)
                for name, value in zip(names, kept, strict=True)
            )
        else:
            states.extend(
                State(f"{operator.name}.{slot}", value)
                for slot, value in zip(slots, wide, strict=True)
            )
    return attrs.evolve(block, states=tuple(states))


def _latents(block: Block, operator: Operator, wide: list[str]) -> list[str]:
    """The values to keep instead of wide ones; none if those are the narrowest."""
    axes = _position_axes(block, operator, wide)
    network = networkx.DiGraph()
    for value in axes:
        network.add_edge((value, "made"), (value, "read"), capacity=_width(block, value))
    for value in wide:
        network.add_edge((value, "read"), _SINK)
    makers = {output: op for op in block.operators for output in op.outputs}
    for value, axis in axes.items():
        before = _same_position(block, makers.get(value), value, axis)
        if before is None:
            network.add_edge(_SOURCE, (value, "made"))
        for other in before or {}:
            network.add_edge((other, "read"), (value, "made"))
    if _SOURCE not in network or _SINK not in network:
        return []
    # of equal cuts networkx gives that nearest to the sink, so that least is computed again
    least, (far, _) = networkx.minimum_cut(network, _SOURCE, _SINK)
    given = max((_width(block, value) for value in block.inputs), default=0)
    if least >= min(given, sum(_width(block, value) for value in dict.fromkeys(wide))):
        return []
    return [value for value in axes if (value, "made") in far and (value, "read") not in far]


def _position_axes(block: Block, operator: Operator, wide: list[str]) -> dict[str, int]:
    """The values that keys and values follow from position by position, and that axis of each."""
    makers = {output: op for op in block.operators for output in op.outputs}
    signature = _signature(block, operator)
    found: dict[str, int] = {}
    if signature is None:
        return found
    waiting = [
        (value, position)
        for value, patterns in zip(operator.inputs, signature.inputs, strict=True)
        if value in wide
        for position, pattern in enumerate(patterns)
        if set(pattern) <= signature.whole and set(pattern) & _shared(signature, operator, wide)
    ]
    while waiting:
        value, axis = waiting.pop()
        if value not in found:
            found[value] = axis
            before = _same_position(block, makers.get(value), value, axis)
            waiting.extend((before or {}).items())
    return {value: found[value] for value in block.tensors if value in found}


def _shared(signature: Signature, operator: Operator, wide: list[str]) -> frozenset[str]:
    """The letters that keys and values have and the result has not: the positions."""
    borne = [
        letters((patterns,))
        for value, patterns in zip(operator.inputs, signature.inputs, strict=True)
        if value in wide
    ]
    return frozenset.intersection(*borne) - letters(signature.outputs)


def _same_position(
    block: Block, maker: Operator | None, value: str, axis: int
) -> dict[str, int] | None:
    """What a value's entry for a position is computed from, with the axis of positions in each.

    None if it is given to the block, or computed from entries of other positions too.
    """
    signature = _signature(block, maker) if maker is not None else None
    if maker is None or signature is None:
        return None
    pattern = signature.outputs[maker.outputs.index(value)][axis]
    if len(pattern) != 1 or not isinstance(pattern[0], str):
        return None
    letter = pattern[0]
    if letter in signature.free:
        return {}
    if letter in signature.whole or letter not in letters(signature.inputs):
        return None
    found: dict[str, int] = {}
    for name, patterns in zip(maker.inputs, signature.inputs, strict=True):
        places = [place for place, own in enumerate(patterns) if own == (letter,)]
        bearing = letters((patterns,))
        if letter in bearing and len(places) != 1:
            return None
        found.update((name, place) for place in places)
    return found


def _signature(block: Block, operator: Operator) -> Signature | None:
    rule = rule_for(operator.target)
    if rule is None:
        return None
    inputs = tuple(block.tensors[value] for value in operator.inputs)
    outputs = tuple(block.tensors[value] for value in operator.outputs)
    return bind(rule, Site(operator, inputs, outputs))


def _width(block: Block, value: str) -> int:
    """The elements of a value at nominal sizes, so of one position but for a factor."""
    return math.prod(
        evaluate(size, dict.fromkeys(symbols_of(size), _NOMINAL))
        for size in block.tensors[value].shape
    )

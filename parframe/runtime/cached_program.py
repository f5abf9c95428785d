"""Programs with a key-value cache, so that the same operators compute prefill and decode.

A program without a cache computes keys and values of all tokens. With a cache, it computes the
state (keys and values, or the latent that they are computed from) of a step's tokens only and
writes it into the cache; the operators between the state and the attention run on all cached
positions. All other operators must treat each position by itself, which is checked by their rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import attrs
import sympy

from parframe.errors import ParframeError
from parframe.graph import Arg, Operator, Ref, State, Tensor, rename_arg
from parframe.layout import Region
from parframe.plan import Program, group_axes
from parframe.rules import DistributedForm
from parframe.rules.communication import ALL_GATHER, SHARD
from parframe.rules.device_operators import WRITE_CACHE
from parframe.rules.table import DISTRIBUTED_FORMS, rule_of
from parframe.runtime.positionwise import NO_CACHE_HINT, check_positionwise, no_cache_error
from parframe.sizes import Size, substitute, symbol, symbols_of

SLOTS = "slots"
"""Input with the cache slot of each token of a step: ``[batch, sequence]`` of the device."""

CACHED_POSITIONS = "cached_positions"
"""Input with the position of each cache entry: ``[batch, slots of the device]``."""

CONTEXT = symbol("context")
"""Number of cache slots of a row on a device."""

_SUFFIX = "%cached"
"""End of the names of values that are computed for all cached positions."""


@attrs.frozen
class CacheSpec:
    """Shape and dtype of the cache of a state on a device.

    Dim 0 is the rows; ``position_dim`` has the size `CONTEXT`.
    """

    name: str
    shape: tuple[Size, ...]
    dtype: str
    position_dim: int


@attrs.frozen
class CachedProgram:
    """A program that writes and reads a key-value cache.

    ``program`` takes the caches, `SLOTS` and `CACHED_POSITIONS` as values. ``token_regions`` are
    the tokens of a step that the device caches: a region of ``[batch, sequence]``, then a region of
    that region, and so on.
    """

    program: Program
    caches: Mapping[str, CacheSpec]
    token_regions: tuple[tuple[Region, ...], ...]


def add_cache(program: Program, lengths: Set[str]) -> CachedProgram:
    """Rewrite a program so that its states are read from and written into caches.

    ``lengths`` are the symbols that are, or depend on, the length of the sequence. An error of kind
    ``run`` names the operator that prevents the model from running with a cache.
    """
    attentions = [operator for operator in program.operators if _cached_arguments(operator)]
    check_positionwise(program, lengths, {operator.name for operator in attentions})
    rewriter = _CacheRewriter(program, lengths)
    operators: list[Operator] = []
    for operator in program.operators:
        cached = _cached_arguments(operator)
        operators.extend(rewriter.rewrite_attention(operator) if cached else (operator,))
    regions = {rewriter.find_token_regions(operator) for operator in attentions}
    if len(regions) > 1:
        raise no_cache_error(attentions[0], "its layers cache different tokens on a device")
    tensors = {**program.tensors, **rewriter.tensors}
    rewritten = attrs.evolve(program, operators=tuple(operators), tensors=tensors, states=())
    return CachedProgram(
        remove_dead_operators(rewritten), rewriter.caches, regions.pop() if regions else ()
    )


def remove_dead_operators(program: Program) -> Program:
    """Return a program without the operators whose results are not used."""
    used = {part.name for part in program.outputs}
    operators = []
    for operator in reversed(program.operators):
        writes = not operator.outputs or operator.target == WRITE_CACHE.target
        if writes or used & set(operator.outputs):
            operators.append(operator)
            used.update(operator.inputs)
    return attrs.evolve(program, operators=tuple(reversed(operators)))


class _CacheRewriter:
    """Rewriting of a program's attentions to read from caches."""

    def __init__(self, program: Program, lengths: Set[str]) -> None:
        self.program = program
        self.lengths = lengths
        self.producers = {name: op for op in program.operators for name in op.outputs}
        self.states = {self._skip_gather(state.value): state for state in program.states}
        self.tensors: dict[str, Tensor] = {}
        self.caches: dict[str, CacheSpec] = {}

    def rewrite_attention(self, attention: Operator) -> list[Operator]:
        """Return the attention over cached keys, after the operators that compute its inputs."""
        args = dict(attention.args)
        if args.get("mask") is not None:
            raise no_cache_error(attention, "its mask is computed for the tokens of one step only")
        if not args.get("causal") or not isinstance(args.get("query_positions"), Ref):
            raise no_cache_error(attention, "its attention is not causal, or takes no positions")
        added: list[Operator] = []
        axes = group_axes(attention) if attention.target in DISTRIBUTED_FORMS else ()
        for slot in _cached_arguments(attention):
            name = _tensor_name(args[slot])
            if self._skip_gather(name) != name:
                axes, name = group_axes(self.producers[name]), self._skip_gather(name)
            args[slot] = Ref(self._cached_value(name, added))
        args["key_positions"] = Ref(CACHED_POSITIONS)
        for slot in ("travels", "tag", "axes"):
            args.pop(slot, None)
        if axes:
            args["axes"] = axes
        target = _distributed_form(attention).target if axes else attention.target
        return [*added, attrs.evolve(attention, target=target, args=args)]

    def find_token_regions(self, attention: Operator) -> tuple[tuple[Region, ...], ...]:
        """Return the tokens of a step that the queries of an attention are of, as its keys are."""
        name = _tensor_name(attention.args["query_positions"])
        regions: list[tuple[Region, ...]] = []
        while name in self.producers:
            producer = self.producers[name]
            if producer.target != SHARD.target:
                raise no_cache_error(attention, "its positions are not an input of the model")
            part: Any = producer.args["part"]
            regions.append(part)
            name = producer.inputs[0]
        given = next((part for part in self.program.inputs if part.name == name), None)
        if given is None:
            raise no_cache_error(
                attention, "its positions are computed in the model: load it with positions=True"
            )
        return (given.region, *reversed(regions))

    def _cached_value(self, name: str, added: list[Operator]) -> str:
        """Return the name of a value for all cached positions, and add the operators for it."""
        cached = name + _SUFFIX
        if cached in self.tensors:
            return cached
        tensor = self.program.tensors[name]
        producer = self.producers.get(name)
        if name in self.states:
            added.append(self._write_cache(self.states[name], name, tensor))
            self.tensors[cached] = self._over_context(tensor, cached)
            return cached
        if producer is None or self._gathers_sequence(producer):
            raise ParframeError(
                "run",
                f"{name} ({producer.module if producer else 'the model'})",
                "the model cannot be run with a key-value cache: this value depends on no state",
                NO_CACHE_HINT,
            )
        self._repeat_over_context(producer, added)
        return cached

    def _repeat_over_context(self, producer: Operator, added: list[Operator]) -> None:
        """Add an operator that computes the same from values of all cached positions."""
        names = {
            used: self._cached_value(used, added)
            for used in producer.inputs
            if _depends_on(self.program.tensors[used], self.lengths)
        }
        args = {slot: rename_arg(self._resize(arg), names) for slot, arg in producer.args.items()}
        if "tag" in args:
            args["tag"] = f"{args['tag']}{_SUFFIX}"
        outputs = tuple(output + _SUFFIX for output in producer.outputs)
        for output, cached in zip(producer.outputs, outputs, strict=True):
            self.tensors[cached] = self._over_context(self.program.tensors[output], cached)
        added.append(
            attrs.evolve(producer, name=producer.name + _SUFFIX, args=args, outputs=outputs)
        )

    def _write_cache(self, state: State, name: str, tensor: Tensor) -> Operator:
        """Return the operator that writes a value into the cache of a state, and add the cache."""
        dims = [dim for dim, size in enumerate(tensor.shape) if symbols_of(size) & self.lengths]
        producer = self.producers.get(name)
        where = producer.module if producer is not None else state.name
        if len(dims) != 1 or dims[0] == 0:
            raise ParframeError(
                "run", where, "its cache does not have one dim of positions", NO_CACHE_HINT
            )
        cache = self._over_context(tensor, state.name)
        self.caches[state.name] = CacheSpec(state.name, cache.shape, cache.dtype, dims[0])
        self.tensors[state.name] = cache
        return Operator(
            name=f"{name}%write_cache",
            target=WRITE_CACHE.target,
            args={
                "value": Ref(name),
                "cache": Ref(state.name),
                "slots": Ref(SLOTS),
                "position_dim": dims[0],
            },
            outputs=(name + _SUFFIX,),
            module=where,
        )

    def _skip_gather(self, name: str) -> str:
        """Return the device's own part of a value that is gathered along the sequence."""
        producer = self.producers.get(name)
        gathers = producer is not None and self._gathers_sequence(producer)
        return producer.inputs[0] if producer is not None and gathers else name

    def _gathers_sequence(self, operator: Operator) -> bool:
        """Return whether an operator gathers a value along the sequence."""
        if operator.target != ALL_GATHER.target:
            return False
        before = self.program.tensors[operator.inputs[0]].shape
        after = self.program.tensors[operator.outputs[0]].shape
        pairs = zip(before, after, strict=True)
        return any(part != whole and symbols_of(whole) & self.lengths for part, whole in pairs)

    def _over_context(self, tensor: Tensor, name: str) -> Tensor:
        """Return a tensor of another name with the cached positions in place of a step's."""
        shape = tuple(self._resize(size) for size in tensor.shape)
        return Tensor(name, shape, tensor.dtype)

    def _resize(self, arg: Any) -> Any:
        """Replace the lengths in a size or an argument with the number of cached positions."""
        if isinstance(arg, tuple):
            return tuple(self._resize(part) for part in arg)
        if isinstance(arg, sympy.Expr):
            return substitute(arg, dict.fromkeys(self.lengths, CONTEXT))
        return arg


def _cached_arguments(operator: Operator) -> tuple[str, ...]:
    """Return the arguments of an operator that are read from caches."""
    rule = rule_of(operator)
    return () if rule is None else rule.state


def _distributed_form(attention: Operator) -> DistributedForm:
    """Return the form in which attention is computed over the caches of several devices."""
    rule = rule_of(attention)
    forms = rule.distributed_forms if rule is not None else ()
    form = DISTRIBUTED_FORMS.get(attention.target, forms[0] if forms else None)
    if form is None:
        raise no_cache_error(attention, "its keys and values are on several devices")
    return form


def _depends_on(tensor: Tensor, lengths: Set[str]) -> bool:
    return any(symbols_of(size) & lengths for size in tensor.shape)


def _tensor_name(arg: Arg) -> str:
    if not isinstance(arg, Ref):
        raise ParframeError("run", "attention", f"takes {arg!r} for a tensor", "load it again")
    return arg.name

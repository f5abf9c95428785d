"""A program that keeps keys and values between steps: prefill and decode by the same operators.

What a state names is computed for the tokens of a step alone and written into a cache; from there
to the attention, everything is computed for all kept positions. All else must treat every position
by itself, and that is checked with the operators' rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import attrs
import sympy

from parframe.errors import ParframeError
from parframe.fold import STATEFUL
from parframe.graph import Arg, Operator, Ref, State, Tensor, rename
from parframe.layout import Region
from parframe.plan import Program, group_axes
from parframe.rules.table import EXCHANGES, RULES
from parframe.runtime.positionwise import WITHOUT_CACHE, check_positionwise, refused
from parframe.sizes import Size, substitute, symbol, symbols_of

KEEP = "parframe.write_cache"
"""Writes a step's entries of a value into its cache: ``value, cache, slots, position_dim``."""

KEPT_ATTENTION = "parframe.kept_attention"
"""Attention over kept keys that lie on several devices: as ``parframe.attention``, and ``axes``."""

SLOTS = "slots"
"""The input that says where each token of a step is kept: ``[batch, sequence]`` of the device."""

KEPT_POSITIONS = "kept_positions"
"""The input with the position of every kept entry: ``[batch, slots of the device]``."""

CONTEXT = symbol("context")
"""How many slots a device has for every row."""


_MODELS = {exchange.target: rule.target for rule in RULES.values() for exchange in rule.exchanges}
"""For each exchange the operator of the model that it is a form of."""


@attrs.frozen
class Kept:
    """A cache of a device: a value's shape with `CONTEXT` on ``axis``; axis 0 is the rows."""

    name: str
    shape: tuple[Size, ...]
    dtype: str
    axis: int


@attrs.frozen
class Keeping:
    """A program that keeps.

    Parameters
    ----------
    program
        The program; caches, `SLOTS` and `KEPT_POSITIONS` are values that it takes.
    kept
        Its caches, by name.
    tokens
        Which of a step's tokens the device keeps: a region of ``[batch, sequence]``, of that
        region another, and so on.
    """

    program: Program
    kept: Mapping[str, Kept]
    tokens: tuple[tuple[Region, ...], ...]


def keeping(program: Program, lengths: Set[str]) -> Keeping:
    """The program, its states kept in caches.

    Parameters
    ----------
    program
        A device's program.
    lengths
        The symbols that are, or depend on, the length of the sequence.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the model cannot be run with a cache, with what stands in the way.
    """
    attentions = [operator for operator in program.operators if _slots(operator)]
    check_positionwise(program, lengths, {operator.name for operator in attentions})
    rewriting = _Rewriting(program, lengths)
    operators: list[Operator] = []
    for operator in program.operators:
        operators.extend(rewriting.attended(operator) if _slots(operator) else (operator,))
    tokens = {rewriting.tokens(operator) for operator in attentions}
    if len(tokens) > 1:
        raise refused(attentions[0], "its layers keep different tokens on a device")
    tensors = {**program.tensors, **rewriting.tensors}
    changed = attrs.evolve(program, operators=tuple(operators), tensors=tensors, states=())
    return Keeping(without_dead(changed), rewriting.kept, tokens.pop() if tokens else ())


def _slots(operator: Operator) -> tuple[str, ...]:
    """The arguments of an operator that are kept."""
    return STATEFUL.get(_MODELS.get(operator.target, operator.target), ())


class _Rewriting:
    """What is added to a program: operators on kept values, their tensors, caches."""

    def __init__(self, program: Program, lengths: Set[str]) -> None:
        self.program = program
        self.lengths = lengths
        self.makers = {name: op for op in program.operators for name in op.outputs}
        self.states = {self._before_gather(state.value): state for state in program.states}
        self.tensors: dict[str, Tensor] = {}
        self.kept: dict[str, Kept] = {}

    def attended(self, attention: Operator) -> list[Operator]:
        """The attention over what is kept, after the operators that are new for it."""
        args = dict(attention.args)
        if args.get("mask") is not None:
            raise refused(attention, "a mask is computed for the tokens of one step alone")
        if not args.get("causal") or not isinstance(args.get("query_positions"), Ref):
            raise refused(attention, "its attention looks ahead, or knows no positions")
        added: list[Operator] = []
        axes = group_axes(attention) if attention.target in EXCHANGES else ()
        for slot in _slots(attention):
            name = _name(args[slot])
            if self._before_gather(name) != name:
                axes, name = group_axes(self.makers[name]), self._before_gather(name)
            args[slot] = Ref(self._kept(name, added))
        args["key_positions"] = Ref(KEPT_POSITIONS)
        target = KEPT_ATTENTION if axes else attention.target
        more: dict[str, Arg] = {"axes": axes} if axes else {}
        plain = {slot: arg for slot, arg in args.items() if slot not in ("travels", "tag", "axes")}
        return [*added, attrs.evolve(attention, target=target, args={**plain, **more})]

    def tokens(self, attention: Operator) -> tuple[tuple[Region, ...], ...]:
        """Which of a step's tokens the device's queries are; its keys are of the same."""
        name = _name(attention.args["query_positions"])
        found: list[tuple[Region, ...]] = []
        while name in self.makers:
            maker = self.makers[name]
            if maker.target != "parframe.shard":
                raise refused(attention, "its positions are computed, not given")
            part: Any = maker.args["part"]
            found.append(part)
            name = maker.inputs[0]
        given = next((part for part in self.program.inputs if part.name == name), None)
        if given is None:
            raise refused(attention, "its positions are made in the model: load it with positions")
        return (given.region, *reversed(found))

    def _kept(self, name: str, added: list[Operator]) -> str:
        """The value of this name for all kept positions, the operators for that added."""
        own = f"{name}%kept"
        if own in self.tensors:
            return own
        tensor = self.program.tensors[name]
        maker = self.makers.get(name)
        if name in self.states:
            added.append(self._keep(self.states[name], name, tensor))
            self.tensors[own] = self._over_context(tensor, own)
            return own
        if maker is None or self._gathers_lengths(maker):
            raise ParframeError(
                "run",
                f"{name} ({maker.module if maker else 'the model'})",
                "the model cannot be run with a key-value cache: nothing of this value is kept",
                WITHOUT_CACHE,
            )
        names = {
            used: self._kept(used, added)
            for used in maker.inputs
            if _depends(self.program.tensors[used], self.lengths)
        }
        for output in maker.outputs:
            self.tensors[f"{output}%kept"] = self._over_context(
                self.program.tensors[output], f"{output}%kept"
            )
        args = {slot: rename(self._resized(arg), names) for slot, arg in maker.args.items()}
        if "tag" in args:
            args["tag"] = f"{args['tag']}%kept"
        outputs = tuple(f"{output}%kept" for output in maker.outputs)
        added.append(attrs.evolve(maker, name=f"{maker.name}%kept", args=args, outputs=outputs))
        return own

    def _keep(self, state: State, name: str, tensor: Tensor) -> Operator:
        axes = [at for at, size in enumerate(tensor.shape) if symbols_of(size) & self.lengths]
        maker = self.makers.get(name)
        where = maker.module if maker is not None else state.name
        if len(axes) != 1 or axes[0] == 0:
            raise ParframeError(
                "run", where, "its cache has not one axis of positions", WITHOUT_CACHE
            )
        cache = self._over_context(tensor, state.name)
        self.kept[state.name] = Kept(state.name, cache.shape, cache.dtype, axes[0])
        self.tensors[state.name] = cache
        return Operator(
            name=f"{name}%keep",
            target=KEEP,
            args={
                "value": Ref(name),
                "cache": Ref(state.name),
                "slots": Ref(SLOTS),
                "position_dim": axes[0],
            },
            outputs=(f"{name}%kept",),
            module=where,
        )

    def _before_gather(self, name: str) -> str:
        """The device's own part of a value that is gathered along the sequence."""
        maker = self.makers.get(name)
        gathers = maker is not None and self._gathers_lengths(maker)
        return maker.inputs[0] if maker is not None and gathers else name

    def _gathers_lengths(self, operator: Operator) -> bool:
        """Whether an operator makes more of the sequence out of a device's part."""
        if operator.target != "parframe.all_gather":
            return False
        before = self.program.tensors[operator.inputs[0]].shape
        after = self.program.tensors[operator.outputs[0]].shape
        pairs = zip(before, after, strict=True)
        return any(one != other and symbols_of(other) & self.lengths for one, other in pairs)

    def _over_context(self, tensor: Tensor, name: str) -> Tensor:
        shape = tuple(self._resized(size) for size in tensor.shape)
        return Tensor(name, shape, tensor.dtype)

    def _resized(self, arg: Any) -> Any:
        """A size or an argument with the kept positions in place of a step's."""
        if isinstance(arg, tuple):
            return tuple(self._resized(part) for part in arg)
        if isinstance(arg, sympy.Expr):
            return substitute(arg, dict.fromkeys(self.lengths, CONTEXT))
        return arg


def without_dead(program: Program) -> Program:
    """The program without operators whose results nothing needs."""
    needed = {part.name for part in program.outputs}
    left = []
    for operator in reversed(program.operators):
        if not operator.outputs or operator.target == KEEP or needed & set(operator.outputs):
            left.append(operator)
            needed.update(operator.inputs)
    return attrs.evolve(program, operators=tuple(reversed(left)))


def _depends(tensor: Tensor, lengths: Set[str]) -> bool:
    return any(symbols_of(size) & lengths for size in tensor.shape)


def _name(arg: Arg) -> str:
    if not isinstance(arg, Ref):
        raise ParframeError("run", "attention", f"takes {arg!r} for a tensor", "load it again")
    return arg.name

"""One of the model's operators written for a device's parts, by the table of rules alone."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.checking.tensor_types import Place
from parframe.dims import BoundOperator
from parframe.graph import Arg
from parframe.layout import Axis, Pieces, Span, local_size, region
from parframe.rules import Local, Signature, without_addend
from parframe.sizes import Size


@attrs.frozen
class Written:
    """An operator that a device must have: its outputs are the model's names or ``~1``, ``~2``."""

    target: str
    args: Mapping[str, Arg]
    outputs: tuple[str, ...]
    shape: tuple[Size, ...] | None = None
    dtype: str = ""


def written_plain(bound: BoundOperator, outputs: tuple[Place, ...]) -> tuple[Written, ...]:
    """The operator as the model has it, with the shapes among its arguments made local."""
    operator, rule = bound.site.operator, bound.rule
    args = dict(operator.args)
    if rule is not None:
        args.update((slot, outputs[0].shape) for slot in rule.shapes if slot in args)
    return (Written(operator.target, args, operator.outputs),)


def bare_bound(bound: BoundOperator) -> BoundOperator:
    """The operator without the tensor that is added to its result."""
    if bound.rule is None or bound.signature is None:
        return bound
    return attrs.evolve(bound, site=without_addend(bound.rule, bound.site, bound.signature))


def written_locally(
    bound: BoundOperator,
    inputs: tuple[Place, ...],
    outputs: tuple[Place, ...],
    pieces: Mapping[str, Pieces],
    every: bool,
) -> tuple[Written, ...] | None:
    """The operators that the rule's own function writes; None where it has none.

    ``every`` takes all letters that have dimensions for split, also those that are whole here.
    """
    rule = bound.rule
    if rule is None or rule.local is None or bound.signature is None:
        return None
    local = BoundLocal(bound, bound.signature, inputs, outputs, pieces, every)
    try:
        rule.local(local)
    except (KeyError, IndexError):
        return None
    return tuple(local.operators)


class BoundLocal(Local):
    """What a rule's function asks while it writes an operator; see ``Local``."""

    def __init__(
        self,
        bound: BoundOperator,
        signature: Signature,
        inputs: tuple[Place, ...],
        outputs: tuple[Place, ...],
        pieces: Mapping[str, Pieces],
        every: bool,
    ) -> None:
        self.site = bound.site
        self.signature = signature
        self.letters = bound.labels
        self.pieces = pieces
        self.every = every
        self.operators: list[Written] = []
        self.shapes: dict[str, tuple[Size, ...]] = {}
        for value, where in zip(self.site.operator.inputs, inputs, strict=True):
            self.shapes.setdefault(value, where.shape)
        for value, where in zip(self.site.operator.outputs, outputs, strict=True):
            self.shapes[value] = where.shape

    def shape(self, name: str) -> tuple[Size, ...]:
        """The local shape of an input or output."""
        return self.shapes[name]

    def size(self, letter: str) -> Size:
        """How much of a letter the device holds."""
        axis = self.letters.get(letter)
        if axis is None:
            return self.signature.sizes[letter]
        return local_size(axis, self.pieces.get(letter, {}))

    def start(self, letter: str) -> Size:
        """Where the device's part of a letter begins."""
        parts = region(self._axis(letter), self.pieces.get(letter, {}), {})
        if not parts:
            return 0
        if len(parts) > 1 or not isinstance(parts[0], Span):
            raise KeyError(letter)
        return parts[0].start

    def split(self, letter: str) -> bool:
        """Whether a letter is split."""
        if self.every:
            return bool(self.letters.get(letter))
        return bool(self.pieces.get(letter))

    def emit(
        self, target: str, args: Mapping[str, Arg], output: str | tuple[Size, ...], dtype: str = ""
    ) -> str:
        """Note an operator; see ``Local.emit``."""
        if isinstance(output, str):
            self.operators.append(Written(target, dict(args), (output,)))
            return output
        name = f"~{len(self.operators) + 1}"
        dtype = dtype or self.site.outputs[0].dtype
        self.operators.append(Written(target, dict(args), (name,), output, dtype))
        return name

    def _axis(self, letter: str) -> Axis:
        axis = self.letters.get(letter)
        if axis is None:
            raise KeyError(letter)
        return axis

"""Local forms of one of the model's operators, from the table of rules alone."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.checking.tensor_types import TensorShard
from parframe.dims import BoundOperator
from parframe.graph import Arg
from parframe.layout import Pieces, Span, TensorDim, local_size, region_of
from parframe.rules import Local, Signature
from parframe.sizes import Size


@attrs.frozen
class ExpectedOperator:
    """Operator that a device must have; its outputs are the model's names, or ``~1``, ..."""

    target: str
    args: Mapping[str, Arg]
    outputs: tuple[str, ...]
    shape: tuple[Size, ...] | None = None
    dtype: str = ""


def plain_form(
    bound: BoundOperator, outputs: tuple[TensorShard, ...]
) -> tuple[ExpectedOperator, ...]:
    """Return the operator of the model, with the shapes among its arguments made local."""
    operator, rule = bound.site.operator, bound.rule
    args = dict(operator.args)
    if rule is not None:
        args.update((slot, outputs[0].shape) for slot in rule.shapes if slot in args)
    return (ExpectedOperator(operator.target, args, operator.outputs),)


def local_form(
    bound: BoundOperator,
    inputs: tuple[TensorShard, ...],
    outputs: tuple[TensorShard, ...],
    pieces: Mapping[str, Pieces],
    all_split: bool,
) -> tuple[ExpectedOperator, ...] | None:
    """Return the operators that the rule's own function emits; None where it has none.

    ``all_split`` takes all labels that have dimensions as split, also those that are whole here.
    """
    rule = bound.rule
    if rule is None or rule.local is None or bound.signature is None:
        return None
    local = BoundLocal(bound, bound.signature, inputs, outputs, pieces, all_split)
    try:
        rule.local(local)
    except (KeyError, IndexError):
        return None
    return tuple(local.operators)


class BoundLocal(Local):
    """Local sizes of one operator, which a rule's function asks for; see ``Local``."""

    def __init__(
        self,
        bound: BoundOperator,
        signature: Signature,
        inputs: tuple[TensorShard, ...],
        outputs: tuple[TensorShard, ...],
        pieces: Mapping[str, Pieces],
        all_split: bool,
    ) -> None:
        self.site = bound.site
        self.signature = signature
        self.labels = bound.labels
        self.pieces = pieces
        self.all_split = all_split
        self.operators: list[ExpectedOperator] = []
        self.shapes: dict[str, tuple[Size, ...]] = {}
        for value, shard in zip(self.site.operator.inputs, inputs, strict=True):
            self.shapes.setdefault(value, shard.shape)
        for value, shard in zip(self.site.operator.outputs, outputs, strict=True):
            self.shapes[value] = shard.shape

    def shape(self, name: str) -> tuple[Size, ...]:
        """Return the local shape of an input or output."""
        return self.shapes[name]

    def size(self, label: str) -> Size:
        """Return the local size of a label."""
        tensor_dim = self.labels.get(label)
        if tensor_dim is None:
            return self.signature.sizes[label]
        return local_size(tensor_dim, self.pieces.get(label, {}))

    def start(self, label: str) -> Size:
        """Return where the device's part of a label begins."""
        parts = region_of(self._dim_of(label), self.pieces.get(label, {}), {})
        if not parts:
            return 0
        if len(parts) > 1 or not isinstance(parts[0], Span):
            raise KeyError(label)
        return parts[0].start

    def split(self, label: str) -> bool:
        """Return whether a label is split."""
        if self.all_split:
            return bool(self.labels.get(label))
        return bool(self.pieces.get(label))

    def emit(
        self, target: str, args: Mapping[str, Arg], output: str | tuple[Size, ...], dtype: str = ""
    ) -> str:
        """Add an operator; see ``Local.emit``."""
        if isinstance(output, str):
            self.operators.append(ExpectedOperator(target, dict(args), (output,)))
            return output
        name = f"~{len(self.operators) + 1}"
        dtype = dtype or self.site.outputs[0].dtype
        self.operators.append(ExpectedOperator(target, dict(args), (name,), output, dtype))
        return name

    def _dim_of(self, label: str) -> TensorDim:
        tensor_dim = self.labels.get(label)
        if tensor_dim is None:
            raise KeyError(label)
        return tensor_dim

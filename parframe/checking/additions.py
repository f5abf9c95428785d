"""Types of sums: a sum has the terms of both operands, in whatever order they are added."""

from __future__ import annotations

from collections.abc import Sequence

from parframe.checking.checked_model import ModelOperator, addend_dims, aligned_term_id
from parframe.checking.shard_regions import format_shape
from parframe.checking.tensor_types import (
    Ranges,
    TensorShard,
    TensorType,
    make_shard,
    merge_partial_terms,
    sum_ids,
)
from parframe.checking.value_types import ValueTypes
from parframe.graph import Operator
from parframe.layout import Pieces, TensorDim


class AdditionTypes(ValueTypes):
    """Types of a program's values, and how two of them are added."""

    def infer_sum(self, operator: Operator, origin: ModelOperator) -> None:
        """Set the type of the sum of two values."""
        (output,) = operator.outputs
        left, right = (self.values.get(name) for name in operator.inputs)
        if left is None or right is None:
            self.values[output] = None
            return
        if bool(left.partial_terms) != bool(right.partial_terms):
            partial, complete = (left, right) if left.partial_terms else (right, left)
            self.add_finding(
                "partial", operator,
                f"{complete.label or 'a complete value'} is added to the partial sum "
                f"{partial.label}, so that the reduction adds it more than once",
            )  # fmt: skip
        shard = self._broadcast_shards(operator, left.shard, right.shard)
        total = TensorType(
            shard,
            sum_ids(left.complete_id, right.complete_id),
            merge_partial_terms(left.partial_terms, right.partial_terms),
            operator.name,
        )
        self.set_type(operator, output, total)
        own = (*origin.operator.inputs, *origin.operator.outputs)
        if len({origin.block.tensors[name].dtype for name in own}) == 1:
            self.check_dtypes(operator)

    def _broadcast_shards(
        self, operator: Operator, left: TensorShard, right: TensorShard
    ) -> TensorShard:
        rank = max(len(left.tensor_dims), len(right.tensor_dims))
        tensor_dims: list[TensorDim] = []
        pieces: list[Pieces] = []
        for dim in range(rank, 0, -1):
            parts = [
                (shard.tensor_dims[-dim], shard.ranges[-dim])
                for shard in (left, right)
                if dim <= len(shard.tensor_dims) and shard.tensor_dims[-dim]
            ] or [((), ())]
            if any(other != parts[0] for other in parts[1:]):
                self.add_finding("type", operator, _describe_clash(parts))
            tensor_dims.append(parts[0][0])
            pieces.append(dict(parts[0][1]))
        return make_shard(tuple(tensor_dims), pieces)

    def infer_aligned_addend(self, operator: Operator, origin: ModelOperator) -> None:
        """Set the type of an addend that is viewed along the dims that it is added to."""
        (output,) = operator.outputs
        tensor_type = self.values.get(operator.inputs[0])
        signature = origin.bound.signature
        if tensor_type is None or signature is None or signature.addend is None:
            self.values[output] = None
            return
        own = origin.operator.inputs[signature.addend]
        dims = addend_dims(origin.bound)
        if (
            tensor_type.sum_id != self.model.term_ids[origin.names[own]]
            or tensor_type.partial_terms
        ):
            self.add_finding(
                "type", operator, f"{tensor_type.label} is not the addend of {origin.operator.name}"
            )
        rank = -min(dims, default=0)
        tensor_dims: list[TensorDim] = [()] * rank
        pieces: list[Pieces] = [{}] * rank
        for number, dim in enumerate(dims):
            tensor_dims[dim] = tensor_type.shard.tensor_dims[number]
            pieces[dim] = tensor_type.shard.pieces(number)
        shard = make_shard(tuple(tensor_dims), pieces)
        size = operator.args.get("size", operator.args.get("shape"))
        if (
            not isinstance(size, tuple)
            or len(size) != rank
            or not self.same_sizes(size, shard.shape)
        ):
            shape = format_shape(shard.shape)
            self.add_finding("argument", operator, f"has the shape {size}, not {shape}")
        term = aligned_term_id(tensor_type.sum_id, dims)
        self.set_type(operator, output, TensorType(shard, term, (), tensor_type.label))


def _describe_clash(parts: Sequence[tuple[TensorDim, Ranges]]) -> str:
    texts = [
        ", ".join(f"{dim} {piece.start} to {piece.stop}" for dim, piece in ranges) or "whole"
        for _, ranges in parts
    ]
    return f"adds different parts: {texts[0]} and {texts[1]}"

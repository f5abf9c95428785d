"""Types of one program's values, set as inputs are added and operators are inferred."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import sympy

from parframe.checking.checked_model import (
    CheckedModel,
    ModelOperator,
    addend_dims,
    aligned_term_id,
)
from parframe.checking.findings import Finding
from parframe.checking.operator_types import OperatorType
from parframe.checking.samples import Bindings, SampledSize, same_size, sample_size
from parframe.checking.shard_regions import format_shape, pieces_of_regions, shard_of_part
from parframe.checking.tensor_types import (
    Ranges,
    TensorShard,
    TensorType,
    make_shard,
    merge_partial_terms,
    sizes_of,
    sum_ids,
)
from parframe.graph import Operator, Ref
from parframe.layout import Pieces, Range, TensorDim
from parframe.plan import Part, Program
from parframe.sizes import Size


class ValueTypes:
    """Types of one program's values.

    - ``operator_types``: cache of operator types, by all that they depend on; shared by programs.
    - ``bindings``: the symbols of the ranks that run the program, in numbers.
    """

    def __init__(
        self,
        model: CheckedModel,
        program: Program,
        ranks: tuple[int, ...],
        operator_types: dict[object, OperatorType],
        bindings: Sequence[Bindings],
    ) -> None:
        self.model = model
        self.program = program
        self.ranks = ranks
        self.operator_types = operator_types
        self.bindings = bindings
        self.values: dict[str, TensorType | None] = {}
        self.known_ranges: dict[str, list[Range]] = {}
        self.findings: list[Finding] = []
        self._canonical_shards: dict[TensorShard, TensorShard] = {}
        self._seen: dict[tuple[str, tuple[tuple[SampledSize, SampledSize], ...]], Range] = {}

    def add_finding(
        self, kind: str, operator: Operator | None, message: str, module: str = ""
    ) -> None:
        """Add a finding."""
        name = operator.name if operator is not None else ""
        module = module or (operator.module if operator is not None else "")
        self.findings.append(Finding(kind, self.ranks, message, operator=name, module=module))

    def same_size(self, left: Size, right: Size) -> bool:
        """Return whether two sizes are the same expression, or the same number on every rank."""
        if same_size(left, right):
            return True
        if isinstance(left, int) and isinstance(right, int):
            return False
        try:
            return all(sample_size(left, own) == sample_size(right, own) for own in self.bindings)
        except KeyError:
            return False

    def add_part(self, part: Part) -> None:
        """Set the type of a part of an input or a weight, by its region."""
        tensor_dims = self.model.outer.get(part.whole)
        if tensor_dims is None or part.whole not in self.model.term_ids:
            self.values[part.name] = None
            return
        shard = shard_of_part(tensor_dims, part)
        if shard is None:
            self.add_finding(
                "weights" if part.whole in self.model.graph.parameters else "type",
                None,
                f"the region of {part.name!r} crosses the dimensions of {part.whole!r}",
            )
            self.values[part.name] = None
            return
        self.set_type(
            None, part.name, TensorType(shard, self.model.term_ids[part.whole], (), part.whole)
        )

    def set_type(
        self, operator: Operator | None, name: str, tensor_type: TensorType | None
    ) -> None:
        """Set the type of a value, and compare it with the recorded shape."""
        if tensor_type is not None:
            tensor_type = attrs.evolve(tensor_type, shard=self.canonical_shard(tensor_type.shard))
        self.values[name] = tensor_type
        if tensor_type is None:
            return
        for ranges in tensor_type.shard.ranges:
            for dim, piece in ranges:
                known = self.known_ranges.setdefault(dim, [])
                if piece not in known:
                    known.append(piece)
        recorded = self.program.tensors.get(name)
        if recorded is None:
            return
        shape = tensor_type.shard.shape
        if len(shape) != len(recorded.shape) or not all(map(self.same_size, shape, recorded.shape)):
            self.add_finding(
                "shape", operator,
                f"{name!r} is recorded as {format_shape(recorded.shape)}, "
                f"but is {format_shape(shape)}",
            )  # fmt: skip

    def canonical_shard(self, shard: TensorShard) -> TensorShard:
        """Return an equal shard in the ranges seen first, without ranges that are whole.

        Two ranges that are the same numbers on every rank are one, however they are written.
        """
        if shard not in self._canonical_shards:
            pieces = [
                {
                    dim: self._first_equal(dim, piece)
                    for dim, piece in ranges
                    if not self.same_size(piece.start, 0)
                    or not self.same_size(piece.stop, sizes_of(tensor_dim)[dim])
                }
                for tensor_dim, ranges in zip(shard.tensor_dims, shard.ranges, strict=True)
            ]
            self._canonical_shards[shard] = make_shard(shard.tensor_dims, pieces)
        return self._canonical_shards[shard]

    def _first_equal(self, dim: str, piece: Range) -> Range:
        """Return the first range of a dimension that has the same numbers on every rank."""
        ends = tuple(
            (sample_size(piece.start, own), sample_size(piece.stop, own)) for own in self.bindings
        )
        return self._seen.setdefault((dim, ends), piece)

    def infer_shard(self, operator: Operator) -> None:
        """Set the type of a local slice of a value."""
        source = operator.args.get("input")
        tensor_type = self.values.get(source.name) if isinstance(source, Ref) else None
        part = operator.args.get("part")
        (output,) = operator.outputs
        if tensor_type is None or not isinstance(part, tuple):
            self.values[output] = None
            return
        found = pieces_of_regions(tensor_type.shard.tensor_dims, part, tensor_type.shard.ranges)
        if found is None:
            self.add_finding(
                "type", operator, f"the part of {tensor_type.label} crosses its dimensions"
            )
            self.values[output] = None
            return
        self.set_type(
            operator,
            output,
            attrs.evolve(tensor_type, shard=make_shard(tensor_type.shard.tensor_dims, found)),
        )
        self.check_dtypes(operator)

    def check_dtypes(self, operator: Operator) -> None:
        """Add a finding for an operator whose values have different recorded dtypes."""
        tensors = self.program.tensors
        kinds = {tensors[n].dtype for n in (*operator.inputs, *operator.outputs) if n in tensors}
        if len(kinds) > 1:
            self.add_finding("shape", operator, f"has the dtypes {', '.join(sorted(kinds))}")

    def same_sizes(self, arguments: Sequence[object], sizes: Sequence[Size]) -> bool:
        """Return whether sizes among an operator's arguments are these."""
        return all(
            isinstance(argument, int | sympy.Expr) and self.same_size(argument, size)
            for argument, size in zip(arguments, sizes, strict=True)
        )

    def label(self, name: str) -> str:
        """Return the model's name of a value."""
        tensor_type = self.values.get(name)
        return tensor_type.label or name if tensor_type is not None else name

    def sum_id(self, name: str) -> int | None:
        """Return the id of the sum of a value's terms; None where it is unknown."""
        tensor_type = self.values.get(name)
        return tensor_type.sum_id if tensor_type is not None else None

    def ranges(self, dim: str) -> Sequence[Range]:
        """Return the ranges of a dimension that values of the device have."""
        return self.known_ranges.get(dim, ())

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

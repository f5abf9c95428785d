"""Concrete types of a program's ranks, written as one type in the program's symbols."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from parframe.checking.concrete_types import (
    ConcreteContractedRange,
    ConcreteRange,
    ConcreteType,
    evaluate_range,
)
from parframe.checking.program_types import ProgramTypes
from parframe.checking.samples import SAMPLE_COUNT, Bindings, SampledSize, sample_size
from parframe.checking.tensor_types import (
    ContractedRange,
    PartialTerm,
    TensorType,
    make_shard,
    sizes_of,
)
from parframe.layout import Range
from parframe.plan import Plan
from parframe.sizes import Size, offset, symbol


class Symbolizer:
    """Finds the symbols of programs that have certain values on their ranks.

    Where a program has no such symbol, a new one is added to the bindings of its ranks.
    """

    def __init__(
        self, plan: Plan, symbols: Bindings, bindings: Sequence[MutableMapping[str, SampledSize]]
    ) -> None:
        self.plan = plan
        self.symbols = symbols
        self.bindings = bindings
        self._ranges: dict[tuple[str, str], list[tuple[Range, tuple[ConcreteRange, ...]]]] = {}
        self._fresh = 0

    def symbolize(
        self, program_types: ProgramTypes, results: Sequence[ConcreteType]
    ) -> TensorType | None:
        """Return the type of all ranks in the program's symbols; None if their sums differ."""
        first = results[0]
        if any(
            other.tensor_dims != first.tensor_dims
            or other.complete_id != first.complete_id
            or [t.term for t in other.partial_terms] != [t.term for t in first.partial_terms]
            for other in results
        ):
            return None
        pieces: list[dict[str, Range]] = []
        for number, tensor_dim in enumerate(first.tensor_dims):
            own: dict[str, Range] = {}
            sizes = sizes_of(tensor_dim)
            dims = sorted({dim for result in results for dim, _ in result.ranges[number]})
            for dim in dims:
                own[dim] = self._range(
                    program_types,
                    dim,
                    sizes[dim],
                    [result.range(number, dim) for result in results],
                )
            pieces.append(own)
        partial_terms: list[PartialTerm] = []
        for number, term in enumerate(first.partial_terms):
            found = self._contributions(program_types, results, number)
            if found is None:
                return None
            partial_terms.append(
                PartialTerm(term.term, term.label, term.reduction, frozenset(found))
            )
        return TensorType(
            make_shard(first.tensor_dims, pieces),
            first.complete_id,
            tuple(partial_terms),
            first.label,
        )

    def _contributions(
        self, program_types: ProgramTypes, results: Sequence[ConcreteType], number: int
    ) -> list[tuple[ContractedRange, ...]] | None:
        """Return the contributions of one partial term in the program's symbols.

        None if ranks have different numbers of them.
        """
        groups = [_by_keys(result.partial_terms[number].contributions) for result in results]
        found = []
        for keys in sorted({keys for group in groups for keys in group}):
            parts = [group.get(keys, []) for group in groups]
            most = max(len(own) for own in parts)
            if any(len(own) not in ((0, 1) if most == 1 else (most,)) for own in parts):
                return None
            for which in range(most):
                ranges = []
                for source, dim, size in keys:
                    concrete = [own[which][source, dim, size] if own else None for own in parts]
                    total = self._size(program_types, size)
                    piece = self._range(program_types, dim, total, concrete)
                    ranges.append(ContractedRange(source, dim, total, piece))
                found.append(tuple(ranges))
        return found

    def _size(self, program_types: ProgramTypes, size: SampledSize) -> Size:
        """Return a size that is the same on all ranks, in the program's symbols."""
        if len(set(size)) == 1:
            return size[0]
        for name, value in self.symbols.items():
            if value == size:
                return symbol(name)
        return self._name(program_types, [size] * len(program_types.ranks))

    def _range(
        self,
        program_types: ProgramTypes,
        dim: str,
        size: Size,
        concrete: Sequence[ConcreteRange | None],
    ) -> Range:
        """Return a range that has these numbers on the ranks of a program."""
        whole: ConcreteRange = ((0,) * SAMPLE_COUNT, sample_size(size, self.symbols))
        wanted = tuple(piece if piece is not None else whole for piece in concrete)
        if all(piece == wanted[0] for piece in wanted) and all(
            len(set(end)) == 1 for end in wanted[0]
        ):
            return Range(wanted[0][0][0], wanted[0][1][0])
        known = self._ranges.setdefault((program_types.program.name, dim), [])
        seen = {piece for piece, _ in known}
        for piece in program_types.known_ranges.get(dim, ()):
            if piece not in seen:
                ranks = program_types.ranks
                known.append((piece, tuple(evaluate_range(piece, self.bindings[r]) for r in ranks)))
        for piece, found in known:
            if found == wanted:
                return piece
        start = self._name(program_types, [piece[0] for piece in wanted])
        lengths = [tuple(b - a for a, b in zip(*piece, strict=True)) for piece in wanted]
        ends = {end for length in lengths for end in length}
        length = ends.pop() if len(ends) == 1 else self._name(program_types, lengths)
        piece = Range(start, start + length)
        known.append((piece, wanted))
        return piece

    def _name(self, program_types: ProgramTypes, values: Sequence[SampledSize]) -> Size:
        """Return a symbol with these values on the ranks: one of the program's, or a new one."""
        names = set.intersection(
            *(set(self.plan.devices[rank].bindings) for rank in program_types.ranks)
        )
        for name in sorted(names):
            if all(
                self.bindings[rank][name] == value
                for rank, value in zip(program_types.ranks, values, strict=True)
            ):
                return offset(name)
        self._fresh += 1
        name = f"checked{self._fresh}_start"
        for rank, value in zip(program_types.ranks, values, strict=True):
            self.bindings[rank][name] = value
        return offset(name)


def _by_keys(
    contributions: frozenset[tuple[ConcreteContractedRange, ...]],
) -> dict[
    tuple[tuple[str, str, SampledSize], ...],
    list[dict[tuple[str, str, SampledSize], ConcreteRange]],
]:
    """Return contributions by their keys, each kind in order."""
    found: dict[Any, list[Any]] = {}
    for contribution in sorted(contributions):
        found.setdefault(tuple(key for key, _ in contribution), []).append(dict(contribution))
    return found

"""Types of communication operators: the inputs of all ranks of a group give each rank's output."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import attrs

from parframe.checking.collective_types import (
    all_to_all_types,
    gather_types,
    scatter_type,
    unite_types,
)
from parframe.checking.concrete_types import (
    ConcreteRegions,
    ConcreteType,
    RegionEvaluator,
    to_concrete,
)
from parframe.checking.findings import Finding
from parframe.checking.program_types import CommunicationRequest, ProgramTypes
from parframe.checking.reductions import CollectiveResult, reduce_types
from parframe.checking.samples import SampledSize
from parframe.checking.symbolic_types import Symbolizer
from parframe.checking.tensor_types import TensorType
from parframe.graph import Operator
from parframe.plan import Plan, group_axes
from parframe.rules.communication import (
    ALL_GATHER,
    ALL_REDUCE,
    BROADCAST,
    PLAN_OPERATORS,
    POINT_TO_POINT,
    RECV,
    REDUCE_SCATTER,
    SEND,
)
from parframe.rules.table import DISTRIBUTED_FORMS

CommunicationKey = tuple[str, ...]
"""Name of a program, and the key by which its ranks find a communication."""


def communication_key(operator: Operator) -> CommunicationKey:
    """Return the key of a communication, equal on all ranks that take part."""
    between_two = operator.target in POINT_TO_POINT
    peer = (str(operator.args.get("peer")),) if between_two else ()
    return (
        PLAN_OPERATORS[operator.target].name if between_two else "collective",
        ",".join(group_axes(operator)),
        str(operator.args.get("tag")),
        *peer,
    )


def _input_key(request: CommunicationRequest) -> CommunicationKey:
    """Return the number of the input that is asked for, of a distributed form."""
    return () if request.number is None else (str(request.number),)


@attrs.frozen(eq=False)
class CommunicationTyping:
    """Inputs of the communication operators that programs have reached, and the results.

    - ``symbols``: the model's symbols in numbers.
    - ``bindings``: every rank's symbols in numbers.
    - ``symbolizer``: writes results in the symbols of a program.
    - ``requests``: the inputs of every communication so far.
    """

    plan: Plan
    symbols: Mapping[str, SampledSize]
    bindings: Sequence[MutableMapping[str, SampledSize]]
    symbolizer: Symbolizer
    requests: dict[CommunicationKey, CommunicationRequest] = attrs.field(factory=dict)
    findings: list[Finding] = attrs.field(factory=list)
    _groups: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = attrs.field(factory=dict)
    _evaluate: RegionEvaluator = attrs.field(factory=RegionEvaluator)
    _gathered: dict[tuple[int, int], tuple[Any, Any, CollectiveResult]] = attrs.field(factory=dict)

    def add_request(self, program: str, request: CommunicationRequest) -> None:
        """Note that a program has reached a communication."""
        self.requests.setdefault(
            (program, *communication_key(request.operator), *_input_key(request)), request
        )

    def result(
        self, program_types: ProgramTypes, request: CommunicationRequest
    ) -> tuple[TensorType | None] | None:
        """Return the type that a communication gives to every rank of a program.

        The type is in a tuple; None as long as other programs have not reached the communication.
        """
        operator = request.operator
        if operator.target == SEND.target:
            return (None,)
        results: list[CollectiveResult] = []
        known: dict[tuple[int, ...], tuple[ConcreteType, ...] | None] = {}
        for rank in program_types.ranks:
            group = self._group_of(rank, group_axes(operator))
            sources, key = self._source_ranks(operator, group, group.index(rank))
            key = (*key, *_input_key(request))
            if sources not in known:
                if any((self._program(r), *key) not in self.requests for r in sources):
                    return None
                known[sources] = self._inputs(sources, key)
            inputs = known[sources]
            if inputs is None:
                return (None,)
            rank_result = self._rank_result(request, inputs, group, rank)
            if rank_result is None:
                self._add_finding(operator, (rank,), "structure", "has invalid parts")
                return (None,)
            results.append(rank_result)
        self._add_faults(program_types, operator, results)
        if not operator.outputs:
            return (None,)
        tensor_type = self.symbolizer.symbolize(
            program_types, [result.result for result in results]
        )
        if tensor_type is None:
            labels = ", ".join(sorted({result.result.label for result in results}))
            message = f"gives different values to ranks that run the same program: {labels}"
            self._add_finding(operator, program_types.ranks, "type", message)
        return (tensor_type,)

    def _program(self, rank: int) -> str:
        return self.plan.devices[rank].program

    def _group_of(self, rank: int, axes: tuple[str, ...]) -> tuple[int, ...]:
        if (rank, axes) not in self._groups:
            group = self.plan.mesh.group(rank, axes)
            self._groups.update(((other, axes), group) for other in group)
        return self._groups[rank, axes]

    def _source_ranks(
        self, operator: Operator, group: tuple[int, ...], index: int
    ) -> tuple[tuple[int, ...], CommunicationKey]:
        """Return the ranks whose values a rank receives, and the key of their side."""
        if operator.target == RECV.target:
            _, axes, tag, peer = communication_key(operator)
            return (group[int(peer)],), (SEND.name, axes, tag, str(index))
        if operator.target == BROADCAST.target:
            root = operator.args["root"]
            return (group[root if isinstance(root, int) else 0],), communication_key(operator)
        return group, communication_key(operator)

    def _inputs(
        self, sources: tuple[int, ...], key: CommunicationKey
    ) -> tuple[ConcreteType, ...] | None:
        """Return the inputs of some ranks in numbers; None if one is unknown."""
        found: list[ConcreteType] = []
        for source in sources:
            tensor_type = self.requests[(self._program(source), *key)].value
            if tensor_type is None:
                return None
            found.append(to_concrete(tensor_type, self.bindings[source]))
        return tuple(found)

    def _rank_result(
        self,
        request: CommunicationRequest,
        inputs: tuple[ConcreteType, ...],
        group: tuple[int, ...],
        rank: int,
    ) -> CollectiveResult | None:
        """Return the result of one rank; None if the operator is malformed."""
        symbols = tuple(self.symbols.items())
        index = group.index(rank)
        operator = request.operator
        kind = PLAN_OPERATORS.get(operator.target)
        if operator.target in DISTRIBUTED_FORMS:
            return unite_types(inputs, request.dims, symbols)
        if kind in (RECV, BROADCAST):
            return CollectiveResult(inputs[0])
        reduction = str(operator.args.get("reduction"))
        if kind is ALL_REDUCE:
            return reduce_types(inputs, reduction)
        parts = self._regions(operator, "parts", rank, len(inputs))
        if parts is None:
            return None
        if kind is ALL_GATHER:
            seen = (id(inputs), id(parts))
            if seen not in self._gathered:
                self._gathered[seen] = (inputs, parts, gather_types(inputs, parts, symbols))
            return self._gathered[seen][-1]
        if kind is REDUCE_SCATTER:
            whole = reduce_types(inputs, reduction)
            found = scatter_type(whole.result, parts[index], symbols)
            return attrs.evolve(whole, result=found.result) if whole.fault else found
        sends: list[ConcreteRegions] = []
        for other in group:
            own = self.requests[(self._program(other), *communication_key(operator))].operator
            sent = self._regions(own, "sends", other, len(inputs))
            if sent is None:
                return None
            sends.append(sent[index])
        return all_to_all_types(inputs, tuple(sends), parts, symbols)

    def _regions(
        self, operator: Operator, slot: str, rank: int, count: int
    ) -> tuple[ConcreteRegions, ...] | None:
        """Return the regions in an argument, in numbers."""
        parts: Any = operator.args.get(slot)
        if not isinstance(parts, tuple) or len(parts) != count:
            return None
        return self._evaluate(parts, self.bindings[rank])

    def _add_faults(
        self, program_types: ProgramTypes, operator: Operator, results: Sequence[CollectiveResult]
    ) -> None:
        faults: dict[tuple[str, str], list[int]] = {}
        for rank, rank_result in zip(program_types.ranks, results, strict=True):
            if rank_result.fault:
                faults.setdefault((rank_result.kind, rank_result.fault), []).append(rank)
        for (kind, fault), ranks in faults.items():
            self._add_finding(operator, tuple(ranks), kind, fault)

    def _add_finding(
        self, operator: Operator, ranks: tuple[int, ...], kind: str, what: str
    ) -> None:
        self.findings.append(
            Finding(kind, ranks, what, operator=operator.name, module=operator.module)
        )

"""Communication volume of a run, by mesh axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from parframe.graph import BYTES
from parframe.plan import Plan, group_axes
from parframe.rules.communication import RECV, SEND, short_name
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.simulation.collectives import CommunicationCall, elements_sent


@attrs.frozen
class Traffic:
    """Communication operators of one kind over the same mesh axes.

    ``kind`` is the operator, such as ``"all_reduce"``; a send and its recv are one ``"send"``.
    ``count`` and ``bytes`` are those on the device that has the most, in the model's own dtypes:
    for each operator the larger one of the device's input and output. ``total`` counts operators in
    all groups together.
    """

    axes: tuple[str, ...]
    kind: str
    count: int
    bytes: int
    total: int


@attrs.define
class TrafficRecorder:
    """Counter of the communication of a run, by mesh axes and kind."""

    plan: Plan
    counts: dict[tuple[tuple[str, ...], str], dict[int, tuple[int, int]]] = attrs.field(
        factory=dict
    )
    totals: dict[tuple[tuple[str, ...], str], int] = attrs.field(factory=dict)

    def __call__(self, calls: Sequence[CommunicationCall]) -> None:
        """Count one collective or transfer."""
        operator = calls[0].operator
        kind = SEND.name if operator.target == RECV.target else short_name(operator.target)
        key = (group_axes(operator), kind)
        self.totals[key] = self.totals.get(key, 0) + 1
        ranks = self.counts.setdefault(key, {})
        for call in calls:
            if call.operator.target == RECV.target:
                continue
            count, amount = ranks.get(call.rank, (0, 0))
            if operator.target in DISTRIBUTED_FORMS:
                amount += self._sent_bytes(call, calls)
            else:
                amount += self._tensor_bytes(call)
            ranks[call.rank] = (count + 1, amount)

    def rows(self) -> tuple[Traffic, ...]:
        """Return the counts, ordered by mesh axis and kind."""
        order: Mapping[str, int] = {name: i for i, name in enumerate(self.plan.mesh.names)}
        return tuple(
            Traffic(
                axes,
                kind,
                count=max(count for count, _ in ranks.values()),
                bytes=max(amount for _, amount in ranks.values()),
                total=self.totals[axes, kind],
            )
            for (axes, kind), ranks in sorted(
                self.counts.items(), key=lambda row: ([order[a] for a in row[0][0]], row[0][1])
            )
        )

    def _sent_bytes(self, call: CommunicationCall, calls: Sequence[CommunicationCall]) -> int:
        """Return the bytes that a device sends in a distributed form of an operator."""
        operator, tensors = call.operator, self.plan.program(call.rank).tensors
        names = dict(zip(operator.slots, operator.inputs, strict=True))
        place = [other.rank for other in calls].index(call.rank)
        sent = elements_sent(calls, place)
        return int(sum(count * BYTES[tensors[names[slot]].dtype] for slot, count in sent.items()))

    def _tensor_bytes(self, call: CommunicationCall) -> int:
        names = (*call.operator.inputs, *call.operator.outputs)
        dtype = self.plan.program(call.rank).tensors[names[0]].dtype
        sent = call.tensor.numel() if call.tensor is not None else 0
        received = math.prod(call.shape or (0,))
        return int(max(sent, received) * BYTES[dtype])

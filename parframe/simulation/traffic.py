"""What a run communicates, by mesh axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from parframe.graph import BYTES
from parframe.plan import Plan
from parframe.plan.device_graph import axes_of
from parframe.rules.table import EXCHANGES
from parframe.simulation.collectives import SENT, Request


@attrs.frozen
class Traffic:
    """The communications of one kind over the same mesh axes.

    Parameters
    ----------
    axes
        The mesh axes.
    kind
        The operator, such as ``"all_reduce"``; a send and its recv are one ``"send"``.
    count
        How many there are on the device that has the most.
    bytes
        Their tensors' bytes on the device that has the most, in the model's own dtypes: of each
        the larger of what the device gives and gets.
    total
        How many there are in all groups together.
    """

    axes: tuple[str, ...]
    kind: str
    count: int
    bytes: int
    total: int


@attrs.define
class Recorder:
    """Counts communications as they happen."""

    plan: Plan
    counts: dict[tuple[tuple[str, ...], str], dict[int, tuple[int, int]]] = attrs.field(
        factory=dict
    )
    totals: dict[tuple[tuple[str, ...], str], int] = attrs.field(factory=dict)

    def __call__(self, requests: Sequence[Request]) -> None:
        """Count one communication."""
        operator = requests[0].operator
        kind = operator.target.removeprefix("parframe.").replace("recv", "send")
        key = (axes_of(operator), kind)
        self.totals[key] = self.totals.get(key, 0) + 1
        ranks = self.counts.setdefault(key, {})
        for request in requests:
            if request.operator.target == "parframe.recv":
                continue
            count, amount = ranks.get(request.rank, (0, 0))
            if operator.target in EXCHANGES:
                amount += self._exchanged(request, requests)
            else:
                amount += self._bytes(request)
            ranks[request.rank] = (count + 1, amount)

    def rows(self) -> tuple[Traffic, ...]:
        """What was counted, ordered by mesh axis and kind."""
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

    def _exchanged(self, request: Request, requests: Sequence[Request]) -> int:
        """The bytes that a device sends in an exchange."""
        operator, tensors = request.operator, self.plan.program(request.rank).tensors
        names = dict(zip(operator.slots, operator.inputs, strict=True))
        place = [other.rank for other in requests].index(request.rank)
        sent = SENT[operator.target]([other.args for other in requests], place)
        return int(sum(count * BYTES[tensors[names[slot]].dtype] for slot, count in sent.items()))

    def _bytes(self, request: Request) -> int:
        names = (*request.operator.inputs, *request.operator.outputs)
        dtype = self.plan.program(request.rank).tensors[names[0]].dtype
        given = request.tensor.numel() if request.tensor is not None else 0
        gets = 1
        for size in request.shape or (0,):
            gets *= size
        return int(max(given, gets) * BYTES[dtype])

"""Matching of the communication calls of devices in one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.mesh import Mesh
from parframe.plan import group_axes
from parframe.rules.communication import POINT_TO_POINT
from parframe.simulation.collectives import CommunicationCall

_MOST_SHOWN = 4
_EQUAL_ARGUMENTS = ("axes", "reduction", "root")
"""Arguments that must be equal on all ranks of a group."""


@attrs.define
class CommunicationMatcher:
    """Communication calls of devices that wait for the rest of their group."""

    mesh: Mesh
    pending: dict[Any, dict[int, CommunicationCall]] = attrs.field(factory=dict)

    def add(self, call: CommunicationCall) -> list[CommunicationCall] | None:
        """Add the call of a device that has reached a communication operator.

        Return the calls of all ranks that take part, in the order of the group, if this was the
        last one, and None otherwise. An error of kind ``run`` reports calls that do not match.
        """
        ranks, key = self._participants(call)
        arrived = self.pending.setdefault(key, {})
        for other in arrived.values():
            _check_match(other, call)
        arrived[call.rank] = call
        if len(arrived) < len(ranks):
            return None
        del self.pending[key]
        return [arrived[rank] for rank in ranks]

    def check_complete(self) -> None:
        """Check that no device is waiting; report the ranks that wait, and for which ranks."""
        waiting = [call for arrived in self.pending.values() for call in arrived.values()]
        if not waiting:
            return
        waiting.sort(key=lambda call: call.rank)
        shown = "; ".join(self._describe_waiting(call) for call in waiting[:_MOST_SHOWN])
        more = len(waiting) - _MOST_SHOWN
        raise ParframeError(
            "run",
            f"ranks {', '.join(str(call.rank) for call in waiting[:16])}",
            f"deadlock: {shown}{f'; and {more} more' if more > 0 else ''}",
            "check the plan with parframe.check",
        )

    def _participants(self, call: CommunicationCall) -> tuple[Sequence[int], Any]:
        """Return the ranks that take part in a communication, and its key in ``pending``."""
        operator = call.operator
        group = self.mesh.group(call.rank, group_axes(operator))
        tag = operator.args["tag"]
        if operator.target not in POINT_TO_POINT:
            return group, (group, tag)
        peer: Any = operator.args["peer"]
        pair = {call.rank, group[peer]}
        if len(pair) < 2:
            raise _mismatch(call, f"{operator.target} to itself")
        return [rank for rank in group if rank in pair], (group, tag, frozenset(pair))

    def _describe_waiting(self, call: CommunicationCall) -> str:
        ranks, key = self._participants(call)
        missing = [rank for rank in ranks if rank not in self.pending[key]]
        return (
            f"rank {call.rank} at {_describe(call.operator)} waits for "
            f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing[:8]))}"
        )


def _check_match(first: CommunicationCall, second: CommunicationCall) -> None:
    """Check that two calls with one tag in one group belong to the same communication."""
    if first.rank == second.rank:
        raise _mismatch(second, f"tag {second.operator.args['tag']!r} is used twice")
    targets = {first.operator.target, second.operator.target}
    if (targets != POINT_TO_POINT) if targets & POINT_TO_POINT else len(targets) > 1:
        raise _mismatch(second, f"does not match {_describe(first.operator)} of rank {first.rank}")
    for slot in _EQUAL_ARGUMENTS:
        own, other = second.operator.args.get(slot), first.operator.args.get(slot)
        if own != other:
            raise _mismatch(second, f"has {slot} {own!r}, but rank {first.rank} has {other!r}")


def _describe(operator: Operator) -> str:
    return f"{operator.name} ({operator.target}, tag {operator.args['tag']!r})"


def _mismatch(call: CommunicationCall, what: str) -> ParframeError:
    return ParframeError(
        "run",
        f"rank {call.rank}, {_describe(call.operator)}",
        what,
        "check the plan with parframe.check",
    )

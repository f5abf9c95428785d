"""Matching the devices that come to communication operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.mesh import Mesh
from parframe.plan.device_graph import axes_of
from parframe.simulation.collectives import Request

_PEERS = frozenset({"parframe.send", "parframe.recv"})
_MOST_SHOWN = 4
_SAME = ("axes", "reduction", "root")


@attrs.define
class Meetings:
    """The communications that some devices have come to and others not yet."""

    mesh: Mesh
    open: dict[Any, dict[int, Request]] = attrs.field(factory=dict)

    def join(self, request: Request) -> list[Request] | None:
        """Let a device come to its communication.

        Parameters
        ----------
        request
            The device and its operator.

        Returns
        -------
        list of Request or None
            All who take part, in the order of the group, if this was the last of them.

        Raises
        ------
        ParframeError
            Of kind ``run``, if it does not fit those who came before.
        """
        members, key = self._meeting(request)
        came = self.open.setdefault(key, {})
        for other in came.values():
            _check_match(other, request)
        came[request.rank] = request
        if len(came) < len(members):
            return None
        del self.open[key]
        return [came[rank] for rank in members]

    def check_done(self) -> None:
        """Make sure that nobody waits any more.

        Raises
        ------
        ParframeError
            Of kind ``run``, telling who waits for whom.
        """
        waiting = [request for came in self.open.values() for request in came.values()]
        if not waiting:
            return
        waiting.sort(key=lambda request: request.rank)
        shown = "; ".join(self._shown(request) for request in waiting[:_MOST_SHOWN])
        more = len(waiting) - _MOST_SHOWN
        raise ParframeError(
            "run",
            f"ranks {', '.join(str(request.rank) for request in waiting[:16])}",
            f"wait for ever: {shown}{f'; and {more} more' if more > 0 else ''}",
            "check the plan with parframe.check",
        )

    def _meeting(self, request: Request) -> tuple[Sequence[int], Any]:
        operator = request.operator
        group = self.mesh.group(request.rank, axes_of(operator))
        tag = operator.args["tag"]
        if operator.target not in _PEERS:
            return group, (group, tag)
        peer: Any = operator.args["peer"]
        pair = {request.rank, group[peer]}
        if len(pair) < 2:
            raise _misfit(request, f"{operator.target} to itself")
        return [rank for rank in group if rank in pair], (group, tag, frozenset(pair))

    def _shown(self, request: Request) -> str:
        members, key = self._meeting(request)
        missing = [rank for rank in members if rank not in self.open[key]]
        return (
            f"rank {request.rank} at {_named(request.operator)} for "
            f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing[:8]))}"
        )


def _check_match(one: Request, other: Request) -> None:
    if one.rank == other.rank:
        raise _misfit(other, f"comes twice to tag {other.operator.args['tag']!r}")
    kinds = {one.operator.target, other.operator.target}
    if (kinds != _PEERS) if kinds & _PEERS else len(kinds) > 1:
        raise _misfit(other, f"meets {_named(one.operator)} of rank {one.rank}")
    for slot in _SAME:
        own, theirs = other.operator.args.get(slot), one.operator.args.get(slot)
        if own != theirs:
            raise _misfit(other, f"has {slot} {own!r} where rank {one.rank} has {theirs!r}")


def _named(operator: Operator) -> str:
    return f"{operator.name} ({operator.target}, tag {operator.args['tag']!r})"


def _misfit(request: Request, what: str) -> ParframeError:
    return ParframeError(
        "run",
        f"rank {request.rank}, {_named(request.operator)}",
        what,
        "check the plan with parframe.check",
    )

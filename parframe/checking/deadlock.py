"""Check for deadlock, where every communication blocks until all of its ranks enter it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from parframe.checking.findings import Finding
from parframe.graph import Operator
from parframe.plan import Plan, communicates, group_axes
from parframe.rules.communication import POINT_TO_POINT, SEND

CommunicationKey = tuple[object, ...]
"""Key of a communication, equal on all ranks that take part."""


@attrs.frozen
class Event:
    """Communication on one device: its operator, its key, and the ranks that take part."""

    operator: Operator
    key: CommunicationKey
    ranks: tuple[int, ...]


def check_deadlock(plan: Plan) -> list[Finding]:
    """Return a finding with the cycle of ranks that wait for each other, if there is one."""
    events = _events(plan)
    at = [0] * len(events)
    waiting_ranks: dict[CommunicationKey, list[int]] = {}
    ready = deque(range(len(events)))
    while ready:
        rank = ready.popleft()
        if at[rank] == len(events[rank]):
            continue
        event = events[rank][at[rank]]
        waiting = waiting_ranks.setdefault(event.key, [])
        waiting.append(rank)
        if len(waiting) == len(event.ranks):
            del waiting_ranks[event.key]
            for other in waiting:
                at[other] += 1
            ready.extend(waiting)
    blocked = {rank for waiting in waiting_ranks.values() for rank in waiting}
    if not blocked:
        return []
    return [_cycle_finding(events, at, min(blocked))]


def _events(plan: Plan) -> list[tuple[Event, ...]]:
    """Return the communications of every rank, in order."""
    communications = {
        name: [
            (operator, group_axes(operator))
            for operator in program.operators
            if communicates(operator)
        ]
        for name, program in plan.programs.items()
    }
    groups: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = {}
    events = []
    for device in plan.devices:
        rank_events = []
        for operator, axes in communications[device.program]:
            if (device.rank, axes) not in groups:
                ranks = plan.mesh.group(device.rank, axes)
                for other in ranks:
                    groups[other, axes] = ranks
            rank_events.append(_event(operator, device.rank, groups[device.rank, axes], axes))
        events.append(tuple(rank_events))
    return events


def _event(operator: Operator, rank: int, group: tuple[int, ...], axes: tuple[str, ...]) -> Event:
    tag = operator.args["tag"]
    if operator.target in POINT_TO_POINT:
        peer = operator.args["peer"]
        other = group[peer] if isinstance(peer, int) else rank
        pair = (rank, other) if operator.target == SEND.target else (other, rank)
        return Event(operator, (*pair, tag), pair)
    return Event(operator, (axes, group[0], tag), group)


def _cycle_finding(events: Sequence[Sequence[Event]], at: Sequence[int], start: int) -> Finding:
    """Return a finding with the chain of waiting ranks that begins at a blocked rank."""
    path: list[int] = []
    rank = start
    steps: list[str] = []
    while rank not in path and at[rank] < len(events[rank]):
        path.append(rank)
        event = events[rank][at[rank]]
        late = [
            other
            for other in event.ranks
            if other != rank and not _is_at(events, at, other, event.key)
        ]
        next_rank = late[0] if late else rank
        steps.append(f"rank {rank} waits in {event.operator.name} for rank {next_rank}")
        if next_rank == rank:
            break
        rank = next_rank
    end = "which waits" if rank in path else "which has ended"
    cycle = path[path.index(rank) :] if rank in path else path
    first = events[path[0]][at[path[0]]].operator
    message = f"{'; '.join(steps)}, {end}"
    ranks = tuple(sorted(cycle))
    return Finding("deadlock", ranks, message, operator=first.name, module=first.module)


def _is_at(
    events: Sequence[Sequence[Event]], at: Sequence[int], rank: int, key: CommunicationKey
) -> bool:
    return at[rank] < len(events[rank]) and events[rank][at[rank]].key == key

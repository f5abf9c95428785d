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
    current = [own[i] if i < len(own) else None for own, i in zip(events, at, strict=True)]
    return [_cycle_finding(current, min(blocked))]


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


def _cycle_finding(current: Sequence[Event | None], start: int) -> Finding:
    """Return a finding with the chain of waiting ranks that begins at a blocked rank."""
    operators: dict[int, Operator] = {}
    rank = start
    steps: list[str] = []
    while rank not in operators and (event := current[rank]) is not None:
        operators[rank] = event.operator
        late = [
            other
            for other in event.ranks
            if other != rank and ((there := current[other]) is None or there.key != event.key)
        ]
        next_rank = late[0] if late else rank
        steps.append(f"rank {rank} waits in {event.operator.name} for rank {next_rank}")
        rank = next_rank
    end = "which waits" if rank in operators else "which has ended"
    path = list(operators)
    ranks = tuple(sorted(path[path.index(rank) :] if rank in path else path))
    first, message = operators[start], f"{'; '.join(steps)}, {end}"
    return Finding("deadlock", ranks, message, operator=first.name, module=first.module)

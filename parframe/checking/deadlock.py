"""Whether all devices come to an end, if every communication blocks until all have come to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from parframe.checking.findings import Finding
from parframe.graph import Operator
from parframe.plan import COMMUNICATION, Plan, group_axes

Meeting = tuple[object, ...]
"""What the devices that take part in one communication know it by."""


@attrs.frozen
class Event:
    """One communication on one device: its operator, and who must be there."""

    operator: Operator
    meeting: Meeting
    members: tuple[int, ...]


def check_deadlock(plan: Plan) -> list[Finding]:
    """The cycle of devices that wait for each other, if there is one."""
    events = _events(plan)
    at = [0] * len(events)
    there: dict[Meeting, list[int]] = {}
    ready = deque(range(len(events)))
    while ready:
        rank = ready.popleft()
        if at[rank] == len(events[rank]):
            continue
        event = events[rank][at[rank]]
        waiting = there.setdefault(event.meeting, [])
        waiting.append(rank)
        if len(waiting) == len(event.members):
            del there[event.meeting]
            for member in waiting:
                at[member] += 1
            ready.extend(waiting)
    blocked = {rank for waiting in there.values() for rank in waiting}
    if not blocked:
        return []
    return [_cycle(events, at, min(blocked))]


def _events(plan: Plan) -> list[tuple[Event, ...]]:
    """Every rank's communications."""
    spoken = {
        name: [
            (operator, group_axes(operator))
            for operator in program.operators
            if operator.target in COMMUNICATION
        ]
        for name, program in plan.programs.items()
    }
    groups: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = {}
    found = []
    for device in plan.devices:
        own = []
        for operator, axes in spoken[device.program]:
            if (device.rank, axes) not in groups:
                members = plan.mesh.group(device.rank, axes)
                for member in members:
                    groups[member, axes] = members
            own.append(_event(operator, device.rank, groups[device.rank, axes], axes))
        found.append(tuple(own))
    return found


def _event(operator: Operator, rank: int, group: tuple[int, ...], axes: tuple[str, ...]) -> Event:
    tag = operator.args["tag"]
    if operator.target in ("parframe.send", "parframe.recv"):
        peer = operator.args["peer"]
        other = group[peer] if isinstance(peer, int) else rank
        pair = (rank, other) if operator.target == "parframe.send" else (other, rank)
        return Event(operator, (*pair, tag), pair)
    return Event(operator, (axes, group[0], tag), group)


def _cycle(events: Sequence[Sequence[Event]], at: Sequence[int], start: int) -> Finding:
    """Who waits for whom, from a blocked device on until one comes again or has ended."""
    path: list[int] = []
    rank = start
    steps: list[str] = []
    while rank not in path and at[rank] < len(events[rank]):
        path.append(rank)
        event = events[rank][at[rank]]
        late = [
            member
            for member in event.members
            if member != rank and not _is_at(events, at, member, event.meeting)
        ]
        following = late[0] if late else rank
        steps.append(f"rank {rank} waits in {event.operator.name} for rank {following}")
        if following == rank:
            break
        rank = following
    end = "which waits" if rank in path else "which has ended"
    cycle = path[path.index(rank) :] if rank in path else path
    first = events[path[0]][at[path[0]]].operator
    return Finding(
        "deadlock", tuple(sorted(cycle)), first.name, first.module, f"{'; '.join(steps)}, {end}"
    )


def _is_at(
    events: Sequence[Sequence[Event]], at: Sequence[int], rank: int, meeting: Meeting
) -> bool:
    return at[rank] < len(events[rank]) and events[rank][at[rank]].meeting == meeting

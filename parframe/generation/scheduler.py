"""Scheduling of requests: batches, and their distribution over replicas."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import attrs

from parframe.generation.requests import Request


@attrs.frozen
class Batch:
    """Requests that run together, one a row.

    Parameters
    ----------
    requests
        Requests in the order of their rows.
    """

    requests: tuple[Request, ...]

    @property
    def load(self) -> int:
        """Largest amount of work in tokens; every row takes as long as the longest."""
        return len(self.requests) * max(request.load for request in self.requests)


def create_batches(requests: Sequence[Request], rows: int, replicas: int = 1) -> tuple[Batch, ...]:
    """Create batches of requests of similar length, the longest first.

    An idle replica takes the next batch. So the longest batches do not begin last, and the replicas
    end at about the same time.

    Parameters
    ----------
    requests
        The requests.
    rows
        Largest number of requests of a batch.
    replicas
        Number of replicas; none is idle while another has two rows.
    """
    rows = max(1, min(rows, -(-len(requests) // replicas)))
    ordered = sorted(requests, key=lambda r: (-r.load, -len(r.tokens), r.number))
    return tuple(
        Batch(tuple(ordered[start : start + rows])) for start in range(0, len(ordered), rows)
    )


def distribute_batches(parts: Sequence[Batch], replicas: int) -> tuple[tuple[Batch, ...], ...]:
    """Assign every batch to the replica with the least work, the largest batch first.

    For replicas that cannot take a batch when they are idle. No replica has more than 4/3 of the
    work of the best distribution (Graham, 1969).
    """
    given: list[list[Batch]] = [[] for _ in range(replicas)]
    loads = [(0, replica) for replica in range(replicas)]
    for batch in sorted(parts, key=lambda batch: -batch.load):
        load, replica = heapq.heappop(loads)
        given[replica].append(batch)
        heapq.heappush(loads, (load + batch.load, replica))
    return tuple(map(tuple, given))

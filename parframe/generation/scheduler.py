"""Which requests run together, where, and the account of what came of each."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import attrs

from parframe.errors import ParframeError
from parframe.generation.requests import Failure, Request, Result


@attrs.frozen
class Batch:
    """Requests that run together, each a row.

    Parameters
    ----------
    requests
        One a row, in order.
    """

    requests: tuple[Request, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens the prompt of each row has."""
        return tuple(len(request.tokens) for request in self.requests)

    @property
    def positions(self) -> int:
        """How many positions of the cache the longest row needs."""
        return max(request.positions for request in self.requests)

    @property
    def load(self) -> int:
        """How much work it is at most, in tokens: every row takes as long as the longest."""
        return len(self.requests) * max(request.load for request in self.requests)

    def padded(self, filler: int = 0) -> tuple[tuple[int, ...], ...]:
        """The prompts, filled up to the longest on their right."""
        width = max(self.lengths)
        return tuple(r.tokens + (filler,) * (width - len(r.tokens)) for r in self.requests)


def batches(requests: Sequence[Request], rows: int, replicas: int = 1) -> tuple[Batch, ...]:
    """Group requests of like length, the longest first.

    A replica that is free takes the next batch: so the longest do not begin last, and the replicas
    end at about the same time.

    Parameters
    ----------
    requests
        The requests.
    rows
        How many run together at most.
    replicas
        How many batches run at the same time; none stays idle while another has two rows.
    """
    rows = max(1, min(rows, -(-len(requests) // replicas)))
    ordered = sorted(requests, key=lambda r: (-r.load, -len(r.tokens), r.number))
    return tuple(
        Batch(tuple(ordered[start : start + rows])) for start in range(0, len(ordered), rows)
    )


def distributed(parts: Sequence[Batch], replicas: int) -> tuple[tuple[Batch, ...], ...]:
    """Give every batch to the replica that has least to do, the largest batch first.

    For replicas that cannot take a batch when they are free; no replica has more than 4/3 of the
    work of the best distribution (Graham, 1969).

    Parameters
    ----------
    parts
        The batches.
    replicas
        How many replicas there are.

    Returns
    -------
    tuple
        For every replica, its batches in order.
    """
    given: list[list[Batch]] = [[] for _ in range(replicas)]
    loads = [(0, replica) for replica in range(replicas)]
    for batch in sorted(parts, key=lambda batch: -batch.load):
        load, replica = heapq.heappop(loads)
        given[replica].append(batch)
        heapq.heappush(loads, (load + batch.load, replica))
    return tuple(map(tuple, given))


@attrs.define
class Ledger:
    """The account of requests: each ends in one result or one error, and none is forgotten."""

    _outcomes: dict[int, Result | Failure | None] = attrs.field(factory=dict, init=False)
    _shown: int = attrs.field(default=0, init=False)

    def submit(self, request: Request) -> None:
        """Note a request.

        Raises
        ------
        ParframeError
            Of kind ``input``, if there is one of its number.
        """
        if request.number in self._outcomes:
            raise ParframeError(
                "input",
                f"request {request.number}",
                "was submitted before",
                "give every request a number of its own",
            )
        self._outcomes[request.number] = None

    def settle(self, outcome: Result | Failure) -> None:
        """Note what came of a request.

        Raises
        ------
        ParframeError
            Of kind ``internal``, if it was not submitted or has ended.
        """
        number = outcome.number
        if self._outcomes.get(number, outcome) is not None:
            what = "has ended before" if number in self._outcomes else "was never submitted"
            raise ParframeError(
                "internal",
                f"request {number}",
                f"something came of it, but it {what}",
                "this is a fault of parframe: please report it",
            )
        self._outcomes[number] = outcome

    @property
    def open(self) -> tuple[int, ...]:
        """The requests of which nothing came so far."""
        return tuple(number for number, outcome in self._outcomes.items() if outcome is None)

    def ready(self) -> Iterator[Result | Failure]:
        """What came of requests and was not given before, in the order in which they came in.

        It ends before the first of which nothing came so far.
        """
        for outcome in list(self._outcomes.values())[self._shown :]:
            if outcome is None:
                return
            self._shown += 1
            yield outcome

    def close(self) -> tuple[Result | Failure, ...]:
        """What came of every request, in the order in which they came in.

        Raises
        ------
        ParframeError
            Of kind ``run``, naming those of which nothing came.
        """
        if self.open:
            first = ", ".join(map(str, self.open[:8])) + (", ..." if len(self.open) > 8 else "")
            raise ParframeError(
                "run",
                f"requests {first}",
                f"nothing came of {len(self.open)} of {len(self._outcomes)} requests",
                "submit them again",
            )
        return tuple(outcome for outcome in self._outcomes.values() if outcome is not None)

"""Tracker of the outcomes of requests."""

from __future__ import annotations

import attrs

from parframe.errors import ParframeError
from parframe.generation.outcomes import Failure, Result
from parframe.generation.requests import Request


@attrs.define
class RequestTracker:
    """Tracker of requests: each ends with exactly one result or failure."""

    _outcomes: dict[int, Result | Failure | None] = attrs.field(factory=dict, init=False)

    def submit(self, request: Request) -> None:
        """Add a request.

        Raises
        ------
        ParframeError
            Of kind ``input``, if another request has its number.
        """
        if request.number in self._outcomes:
            raise ParframeError(
                "input",
                f"request {request.number}",
                "was submitted before",
                "use a different number for every request",
            )
        self._outcomes[request.number] = None

    def finish(self, outcome: Result | Failure) -> None:
        """Add the outcome of a request.

        Raises
        ------
        ParframeError
            Of kind ``internal``, if the request was not submitted or has ended.
        """
        number = outcome.number
        if self._outcomes.get(number, outcome) is not None:
            what = "had already ended" if number in self._outcomes else "was never submitted"
            raise ParframeError(
                "internal",
                f"request {number}",
                f"got an outcome, but it {what}",
                "this is a bug of parframe: please report it",
            )
        self._outcomes[number] = outcome

    @property
    def pending(self) -> tuple[int, ...]:
        """Numbers of the requests that have not ended."""
        return tuple(number for number, outcome in self._outcomes.items() if outcome is None)

    def close(self) -> tuple[Result | Failure, ...]:
        """Return the outcome of every request, in order of submission.

        Raises
        ------
        ParframeError
            Of kind ``run``, naming the requests that have not ended.
        """
        if self.pending:
            first = ", ".join(map(str, self.pending[:8])) + (
                ", ..." if len(self.pending) > 8 else ""
            )
            raise ParframeError(
                "run",
                f"requests {first}",
                f"{len(self.pending)} of {len(self._outcomes)} requests have no outcome",
                "submit them again",
            )
        return tuple(outcome for outcome in self._outcomes.values() if outcome is not None)

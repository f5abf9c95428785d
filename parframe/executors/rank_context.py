"""Context of a rank of a run: its rank, world size, store and timeout."""

from __future__ import annotations

from typing import Any, Protocol


class RankContext(Protocol):
    """Context of a rank of a run, and listener to its progress."""

    @property
    def rank(self) -> int:
        """Rank in the world."""

    @property
    def world(self) -> int:
        """World size."""

    @property
    def store(self) -> Any:
        """Store for the rendezvous; None if the process has process groups already."""

    @property
    def timeout(self) -> float:
        """Timeout of communication in seconds."""

    def phase(self, name: str) -> None:
        """Begin a phase."""

    def step(self, number: int) -> None:
        """Begin a step of the phase."""

    def operator(self, name: str) -> None:
        """Begin an operator."""

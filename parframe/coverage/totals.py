"""Totals of a survey."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from parframe.coverage.outcome import Outcome

CORE = ("TP2", "PP2", "DP2")
"""The composites whose plans must verify for every model that loads."""


@attrs.frozen
class Totals:
    """Totals of a survey, and their shares."""

    types: int
    countable: int  # the types that transformers itself runs
    loaded: int
    verified: int  # the types whose plans are verified under each composite of `CORE`
    defects: int  # the verdicts that are bugs in parframe

    @property
    def share_loaded(self) -> float:
        """Share of the types that load among those that transformers itself runs."""
        return self.loaded / self.countable if self.countable else 1.0

    @property
    def share_verified(self) -> float:
        """Share of the types that are verified among those that load."""
        return self.verified / self.loaded if self.loaded else 1.0


def compute_totals(outcomes: Iterable[Outcome]) -> Totals:
    """Compute the totals of outcomes."""
    outcomes = list(outcomes)
    return Totals(
        types=len(outcomes),
        countable=sum(outcome.counted for outcome in outcomes),
        loaded=sum(outcome.loaded for outcome in outcomes),
        verified=sum(outcome.loaded and outcome.is_verified(CORE) for outcome in outcomes),
        defects=sum(len(outcome.defects) for outcome in outcomes),
    )

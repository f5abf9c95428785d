"""Outcomes of the evaluation of model types, their totals, and the file that stores them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError

COMPOSITES = ("TP2", "TP3", "PP2", "DP2", "TP2PP2", "EP2", "EP2TP2")
"""The composites to partition every model with; those with EP only where it has experts."""

CORE = ("TP2", "PP2", "DP2")
"""The composites whose plans must verify for every model that loads."""

DEFECTS = frozenset({"wrong", "traceback"})
"""The states that are bugs in parframe."""

STATES: Mapping[str, str] = {
    "loaded": "the graph computes the logits that transformers computes",
    "verified": "the plan passes its checks, and its devices compute what the model computes",
    "refused": "parframe does not support the model, and its error gives the reason",
    "unfinished": "the small model needs more time or memory than the limits of the survey",
    "not counted": "transformers itself does not run it on a prompt of text",
    "wrong": "the numbers differ, or the plan fails its checks: a bug in parframe",
    "traceback": "an error that is not a message of parframe: a bug in parframe",
}
"""Every state of a model or a plan, and its meaning."""


@attrs.frozen
class Verdict:
    """State of a model or a plan, with the reason in one line."""

    state: str
    reason: str = ""


@attrs.frozen
class Outcome:
    """Outcome of the evaluation of a model type."""

    model_type: str
    loading: Verdict
    plans: Mapping[str, Verdict] = attrs.field(factory=dict)  # by composite
    finished: bool = False

    @property
    def loaded(self) -> bool:
        """True if the model loads."""
        return self.loading.state == "loaded"

    @property
    def counted(self) -> bool:
        """True if transformers itself runs the model."""
        return self.loading.state != "not counted"

    @property
    def defects(self) -> tuple[str, ...]:
        """Verdicts that are bugs in parframe, one line each."""
        verdicts = [("loading", self.loading), *self.plans.items()]
        return tuple(
            f"{self.model_type} {what}: {verdict.state}, {verdict.reason}"
            for what, verdict in verdicts
            if verdict.state in DEFECTS
        )

    def is_verified(self, composites: Iterable[str]) -> bool:
        """Return whether the plans of all these composites are verified."""
        return all(c in self.plans and self.plans[c].state == "verified" for c in composites)


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


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Read the outcomes in a file, by model type; none if the file does not exist.

    Raises
    ------
    ParframeError
        Of kind ``output``, if the file has other contents.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        outcomes = [_from_json(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParframeError(
            "output",
            str(path),
            "is not a file of results of the survey",
            "use --fresh to replace it, or choose another file by --results",
        ) from error
    return {outcome.model_type: outcome for outcome in outcomes}


def _from_json(content: dict[str, Any]) -> Outcome:
    outcome = Outcome(
        model_type=str(content["model_type"]),
        loading=Verdict(**content["loading"]),
        plans={name: Verdict(**verdict) for name, verdict in content["plans"].items()},
        finished=bool(content["finished"]),
    )
    if not {v.state for v in (outcome.loading, *outcome.plans.values())} <= STATES.keys():
        raise ValueError("unknown state")
    return outcome


def add_outcome(path: Path, outcome: Outcome) -> None:
    """Add an outcome to a file.

    Raises
    ------
    ParframeError
        Of kind ``output``, if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(attrs.asdict(outcome)) + "\n")
    except OSError as error:
        raise ParframeError(
            "output", str(path), f"cannot be written ({error.strerror})", "choose another file"
        ) from error

"""What was found out about a type of model, and the file of JSON lines that keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError

COMPOSITES = ("TP2", "TP3", "PP2", "DP2", "TP2PP2", "EP2", "EP2TP2")
"""What every model is partitioned with; those with EP, only where it has experts."""

DEFECTS = frozenset({"wrong", "traceback"})
"""The states that no model may be in."""

STATES: Mapping[str, str] = {
    "loaded": "the graph computes what transformers computes",
    "proved": "the plan passes its checks, and all devices compute what the model computes",
    "refused": "an error says why not",
    "unfinished": "it needs more time or memory than a small model is given",
    "not counted": "transformers itself does not run it on a prompt of text",
    "wrong": "other numbers, or a plan that does not pass its checks: a defect",
    "traceback": "an error that parframe did not foresee: a defect",
}
"""Every state of a model or a plan, and what it means."""


@attrs.frozen
class Verdict:
    """The state of a model or a plan, and in one line why it is not another."""

    state: str
    reason: str = ""


@attrs.frozen
class Outcome:
    """What was found out about a type.

    Parameters
    ----------
    model_type
        The type, as transformers has it.
    loading
        Whether it loads.
    plans
        For every composite what became of its plan; empty if the model does not load.
    finished
        Whether nothing is left to find out.
    """

    model_type: str
    loading: Verdict
    plans: Mapping[str, Verdict] = attrs.field(factory=dict)
    finished: bool = False

    @property
    def loaded(self) -> bool:
        """Whether the model loads."""
        return self.loading.state == "loaded"

    @property
    def counted(self) -> bool:
        """Whether transformers runs the model itself."""
        return self.loading.state != "not counted"

    @property
    def defects(self) -> tuple[str, ...]:
        """What is wrong with it, a line each."""
        found = [("loading", self.loading), *self.plans.items()]
        return tuple(
            f"{self.model_type} {what}: {verdict.state}, {verdict.reason}"
            for what, verdict in found
            if verdict.state in DEFECTS
        )

    def proved(self, composites: Iterable[str]) -> bool:
        """Whether the plans of all these composites are proved."""
        return all(c in self.plans and self.plans[c].state == "proved" for c in composites)


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """An outcome for JSON."""
    return attrs.asdict(outcome)


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """The outcomes that a file holds, by type; none if there is no such file.

    Raises
    ------
    ParframeError
        Of kind ``output``, if it holds something else.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [_read(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParframeError(
            "output", str(path), "does not hold results of coverage", "give --fresh"
        ) from error
    return {outcome.model_type: outcome for outcome in found}


def _read(facts: dict[str, Any]) -> Outcome:
    return Outcome(
        model_type=str(facts["model_type"]),
        loading=Verdict(**facts["loading"]),
        plans={name: Verdict(**verdict) for name, verdict in facts["plans"].items()},
        finished=bool(facts["finished"]),
    )


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
            file.write(json.dumps(facts_of(outcome)) + "\n")
    except OSError as error:
        raise ParframeError(
            "output", str(path), f"cannot be written ({error.strerror})", "choose another file"
        ) from error

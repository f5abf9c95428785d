"""Outcomes as figures, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from parframe.coverage.outcome import COMPOSITES, STATES, Outcome

CORE = ("TP2", "PP2", "DP2")
"""The composites that every model that loads should be proved under."""

_HEAD = """# Coverage

Every type of causal language model that transformers knows is made small, loaded, compared with
what transformers computes, and partitioned; every plan is checked, and proved by running all its
devices in float64. `make coverage` writes this page.
"""


@attrs.frozen
class Totals:
    """The figures of a survey, and the share of each in its whole."""

    types: int
    countable: int
    loaded: int
    proved: int
    defects: int

    @property
    def share_loaded(self) -> float:
        """Of the types that transformers itself runs."""
        return self.loaded / self.countable if self.countable else 1.0

    @property
    def share_proved(self) -> float:
        """Of the types that load, under each composite of `CORE`."""
        return self.proved / self.loaded if self.loaded else 1.0


def totals(outcomes: Iterable[Outcome]) -> Totals:
    """The figures of these outcomes."""
    found = list(outcomes)
    return Totals(
        types=len(found),
        countable=sum(outcome.counted for outcome in found),
        loaded=sum(outcome.loaded for outcome in found),
        proved=sum(outcome.loaded and outcome.proved(CORE) for outcome in found),
        defects=sum(len(outcome.defects) for outcome in found),
    )


def page(outcomes: Iterable[Outcome]) -> str:
    """A page that tells all of it, the same for the same outcomes."""
    found = sorted(outcomes, key=lambda outcome: outcome.model_type)
    composites = [c for c in COMPOSITES if any(c in outcome.plans for outcome in found)]
    parts = [_HEAD, _figures(found), _states(), _matrix(found, composites)]
    return "\n".join([*parts, *_reasons(found)])


def _figures(found: Sequence[Outcome]) -> str:
    sums = totals(found)
    core = f"{', '.join(CORE[:-1])} and {CORE[-1]}"
    rows = [
        ("types of models", str(sums.types), ""),
        ("that transformers runs on a prompt", str(sums.countable), ""),
        ("of these, loaded", str(sums.loaded), f"{sums.share_loaded:.1%}"),
        (f"of these, proved under {core}", str(sums.proved), f"{sums.share_proved:.1%}"),
        ("wrong numbers and tracebacks", str(sums.defects), ""),
    ]
    return _table(("", "number", "share"), rows)


def _states() -> str:
    return "## What the words mean\n\n" + _table(("word", "meaning"), STATES.items())


def _matrix(found: Sequence[Outcome], composites: Sequence[str]) -> str:
    rows = (
        (
            f"`{each.model_type}`",
            each.loading.state,
            *(each.plans[c].state if c in each.plans else "" for c in composites),
        )
        for each in found
    )
    return "## Types\n\n" + _table(("type", "model", *composites), rows)


def _reasons(found: Sequence[Outcome]) -> Iterator[str]:
    """Every verdict that has a reason, plans of one type and reason together."""
    rows: list[tuple[str, str, str]] = []
    for outcome in found:
        if outcome.loading.reason:
            rows.append((f"`{outcome.model_type}`", outcome.loading.state, outcome.loading.reason))
        reasons: dict[str, list[str]] = {}
        for composite, verdict in outcome.plans.items():
            if verdict.reason:
                reasons.setdefault(f"{verdict.state}: {verdict.reason}", []).append(composite)
        rows += [
            (f"`{outcome.model_type}`", ", ".join(which), reason)
            for reason, which in reasons.items()
        ]
    if rows:
        yield "## Why not\n\n" + _table(("type", "what", "reason"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")

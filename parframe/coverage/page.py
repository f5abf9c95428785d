"""Markdown page of the outcomes of a survey, docs/coverage.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from parframe.coverage.outcome import COMPOSITES, CORE, STATES, Outcome, compute_totals

_HEAD = """# Coverage

This page lists every type of causal language model in transformers, and whether parframe loads and
partitions it. For each type, a small model with random weights is loaded and its logits are
compared with those of transformers. Then it is partitioned with each composite; every plan is
checked, and verified by running all its devices in float64. `make coverage` writes this page; for
one type, run `parframe coverage --only TYPE`.
"""


def render_page(outcomes: Iterable[Outcome]) -> str:
    """Return the Markdown page of outcomes; equal outcomes give the same page."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome.model_type)
    composites = [c for c in COMPOSITES if any(c in outcome.plans for outcome in outcomes)]
    states = "## States\n\n" + _table(("state", "meaning"), STATES.items())
    sections = [_HEAD, _totals(outcomes), states, _types(outcomes, composites)]
    return "\n".join([*sections, *_reasons(outcomes)])


def _totals(outcomes: Sequence[Outcome]) -> str:
    totals = compute_totals(outcomes)
    core = f"{', '.join(CORE[:-1])} and {CORE[-1]}"
    rows = [
        ("model types", str(totals.types), ""),
        ("that transformers runs on a prompt", str(totals.countable), ""),
        ("of these, loaded", str(totals.loaded), f"{totals.share_loaded:.1%}"),
        (f"of these, verified under {core}", str(totals.verified), f"{totals.share_verified:.1%}"),
        ("wrong numbers and tracebacks", str(totals.defects), ""),
    ]
    return _table(("", "number", "share"), rows)


def _types(outcomes: Sequence[Outcome], composites: Sequence[str]) -> str:
    rows = (
        (
            f"`{outcome.model_type}`",
            outcome.loading.state,
            *(outcome.plans[c].state if c in outcome.plans else "" for c in composites),
        )
        for outcome in outcomes
    )
    return "## Types\n\n" + _table(("type", "model", *composites), rows)


def _reasons(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield a table of all verdicts with a reason; plans with one reason share a row."""
    rows: list[tuple[str, str, str]] = []
    for outcome in outcomes:
        if outcome.loading.reason:
            rows.append((f"`{outcome.model_type}`", outcome.loading.state, outcome.loading.reason))
        reasons: dict[str, list[str]] = {}
        for composite, verdict in outcome.plans.items():
            if verdict.reason:
                reasons.setdefault(f"{verdict.state}: {verdict.reason}", []).append(composite)
        rows += [
            (f"`{outcome.model_type}`", ", ".join(composites), reason)
            for reason, composites in reasons.items()
        ]
    if rows:
        yield "## Reasons\n\n" + _table(("type", "state or composites", "reason"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [
        " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in line)
        for line in (head, ["---"] * len(head), *rows)
    ]
    return "".join(f"| {line} |\n" for line in lines)

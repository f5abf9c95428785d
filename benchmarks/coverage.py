"""Print how many types of causal language models load and are verified, with the targets."""

from __future__ import annotations

from pathlib import Path

from parframe.coverage import COMPOSITES, Limits, Outcome, compute_totals, survey
from parframe.coverage.outcome import read_outcomes
from parframe.coverage.reference_model import model_types

RESULTS = Path(".build/coverage.jsonl")
"""The file of results that `make coverage` writes; types that it does not have are evaluated."""


def main() -> None:
    known = read_outcomes(RESULTS)
    found: list[Outcome] = [known[name] for name in model_types() if name in known]
    survey(
        [name for name in model_types() if name not in known], COMPOSITES, Limits(), found.append
    )
    totals = compute_totals(found)
    print(f"types countable               {totals.countable} of {totals.types}")
    print(f"loaded                        {totals.share_loaded:.1%} (target: 95%)")
    print(f"verified under TP2, PP2, DP2  {totals.share_verified:.1%} (target: 90%)")
    print(f"wrong numbers and tracebacks  {totals.defects} (target: 0)")


if __name__ == "__main__":
    main()

"""Print how many types of causal language models load and are proved, beside the bars."""

from __future__ import annotations

from pathlib import Path

from parframe.coverage import COMPOSITES, Limits, Outcome, survey, totals
from parframe.coverage.model import model_types
from parframe.coverage.outcome import read_outcomes

RESULTS = Path(".build/coverage.jsonl")
"""What `make coverage` keeps; what it does not hold is examined now."""


def main() -> None:
    known = read_outcomes(RESULTS)
    found: list[Outcome] = [known[name] for name in model_types() if name in known]
    survey(
        [name for name in model_types() if name not in known], COMPOSITES, Limits(), found.append
    )
    sums = totals(found)
    print(f"types countable               {sums.countable} of {sums.types}")
    print(f"loaded                        {sums.share_loaded:.1%} (bar: 95%)")
    print(f"proved under TP2, PP2, DP2    {sums.share_proved:.1%} (bar: 90%)")
    print(f"wrong numbers and tracebacks  {sums.defects} (bar: 0)")


if __name__ == "__main__":
    main()

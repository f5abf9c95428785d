"""Assertions over plans that several test modules share."""

from collections import Counter
from pathlib import Path

import pytest

from parframe.plan import communicates

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"

needs_stories = pytest.mark.skipif(
    not STORIES.is_dir(), reason=f"the trained Llama is not at {STORIES}"
)


def assert_equal(actual, expected, bound):
    """Assert that the largest difference is at most a bound, relative to the largest element."""
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert error <= bound, f"relative error {error:.3g} above {bound:.0e}"


def count_communication(plan, rank=0):
    """Count the communication operators of a rank, by kind."""
    return Counter(
        operator.target.removeprefix("parframe.")
        for operator in plan.program(rank).operators
        if communicates(operator)
    )

"""Quality of choices by prediction: exact, limit violated, or regret."""

import math

import pytest

from benchmarks.calibration.choice_quality import Tried, choices


def tried(latency, predicted_latency, rate, predicted_rate, group="one"):
    return Tried(group, latency, predicted_latency, rate, predicted_rate)


def test_the_best_that_keeps_the_limit_is_exact():
    fast, wide = tried(1, 1, 10, 10), tried(3, 3, 30, 30)
    found = choices([fast, wide], limits=(2, math.inf))
    assert (found.cases, found.exact, found.violated, found.regret) == (2, 1.0, 0.0, 0.0)


def test_a_promise_that_is_broken_is_a_violation_and_no_regret():
    hoped = tried(3, 1.5, 30, 30)
    found = choices([tried(1, 1, 10, 10), hoped], limits=(2,))
    assert (found.exact, found.violated, found.regret) == (0.0, 1.0, 0.0)


def test_what_is_left_on_the_table_is_regret():
    doubted = tried(1.9, 2.1, 30, 30)
    found = choices([tried(1, 1, 24, 10), doubted, tried(9, 9, 1, 1)], limits=(2,))
    assert found.regret == pytest.approx(0.2)


def test_limits_that_tell_nothing_are_left_out():
    some = [tried(1, 1, 10, 10), tried(2, 2, 20, 20)]
    assert choices(some, limits=(0.5, 2, 5)).cases == 0


def test_where_nothing_is_hoped_for_nothing_is_chosen():
    found = choices([tried(1, 3, 10, 10), tried(9, 9, 1, 1)], limits=(2,))
    assert found.none == 1.0

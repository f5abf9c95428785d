"""Estimates add and scale as independent errors and repeated ones do."""

import math

import pytest

from parframe.price.cost.estimate import ZERO, Estimate, total


def test_independent_errors_partly_cancel():
    two = Estimate(1.0, 0.1, ("a",)) + Estimate(1.0, 0.1, ("b", "a"))
    assert two.value == 2.0
    assert two.log_std == pytest.approx(0.1 / math.sqrt(2))
    assert two.notes == ("a", "b")


def test_a_repeated_thing_keeps_its_spread():
    assert Estimate(1.0, 0.1) * 3 == 3 * Estimate(1.0, 0.1) == Estimate(3.0, 0.1)


def test_a_sum_is_the_chain_of_additions():
    parts = [Estimate(1.0, 0.2), Estimate(2.0, 0.1), Estimate(0.5, 0.4, ("x",))]
    chain = ZERO + parts[0] + parts[1] + parts[2]
    whole = total(parts)
    assert whole.value == pytest.approx(chain.value)
    assert whole.log_std == pytest.approx(chain.log_std)
    assert whole.notes == chain.notes


def test_nothing_adds_up_to_nothing():
    assert ZERO + ZERO == ZERO == total([])


def test_the_interval_is_centred_on_the_logarithm():
    low, high = Estimate(2.0, 0.1).interval()
    assert low * high == pytest.approx(4.0)
    assert math.log(high / 2.0) == pytest.approx(0.12816, rel=1e-3)


def test_a_factor_of_its_own_widens():
    wide = Estimate(1.0, 0.3).widened(0.4, "no rows")
    assert wide.log_std == pytest.approx(0.5)
    assert wide.notes == ("no rows",)

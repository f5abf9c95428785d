"""Sizes: integers and expressions, written and read without evaluating text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.sizes import (
    divide,
    evaluate,
    floordiv,
    format_size,
    minimum,
    parse_size,
    product,
    simplify,
    symbol,
)

VALUES = {"batch": 7, "sequence": 33}

leaves = st.one_of(st.integers(0, 40), st.sampled_from(["batch", "sequence"]).map(symbol))


def _grown(inner):
    divisors = st.integers(1, 9)
    return st.one_of(
        st.tuples(inner, inner).map(lambda pair: simplify(pair[0] + pair[1])),
        st.tuples(inner, inner).map(lambda pair: simplify(pair[0] - pair[1])),
        st.tuples(inner, inner).map(product),
        st.tuples(inner, divisors).map(lambda pair: floordiv(*pair)),
        st.tuples(inner, inner).map(lambda pair: minimum(*pair)),
    )


@given(st.recursive(leaves, _grown, max_leaves=6))
def test_formatted_sizes_parse_to_the_same_size(size):
    again = parse_size(format_size(size))
    assert evaluate(again, VALUES) == evaluate(size, VALUES)
    assert format_size(again) == format_size(parse_size(format_size(again)))


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_product_divides_by_its_factors(left, right):
    batch = symbol("batch")
    assert divide(product((left, right, batch)), product((left, batch))) == right
    assert divide(product((left, batch)), batch) == left


def test_uncertain_division_has_no_quotient():
    assert divide(symbol("batch"), 2) is None
    assert divide(7, 2) is None
    assert divide(symbol("batch"), symbol("sequence")) is None


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "batch.real",
        "(lambda: 1)()",
        "1.5",
        "'a'",
        "True",
        "batch ** batch",
        "9 ** 9999",
        "[1][0]",
        "",
        "1 +",
        "batch" * 1000,
        "(" * 5000 + "1" + ")" * 5000,
        "-" * 100 + "1",
    ],
)
def test_text_that_is_no_size_is_refused(source):
    with pytest.raises(ParframeError, match=r"error\[graph\].*not a size"):
        parse_size(source)

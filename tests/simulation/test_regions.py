"""Regions of tensors: `take` and `put` follow the runs of every dim."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.layout import Join, Span, region_length, region_runs, region_size
from parframe.simulation.regions import evaluate_regions, put, take
from parframe.sizes import symbol

spans = st.tuples(*[st.integers(0, 4)] * 3).map(sorted).map(lambda t: Span(t[2], t[0], t[1]))
regions = st.recursive(
    st.lists(spans, max_size=3).map(tuple),
    lambda inner: st.tuples(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Join(tuple(parts))),
        st.lists(spans, max_size=1),
    ).map(lambda pair: (pair[0], *pair[1])),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150)
@given(st.lists(regions, min_size=1, max_size=2))
def test_take_and_put_follow_the_runs_of_every_dim(axes):
    axes = evaluate_regions(axes, {})
    shape = [region_size(axis) for axis in axes]
    whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape) + 1
    index = [
        torch.tensor([i for a, b in region_runs(axis) for i in range(a, b)]).long() for axis in axes
    ]
    expected = whole
    for axis, wanted in enumerate(index):
        expected = expected.index_select(axis, wanted)
    piece = take(whole, axes)
    assert list(piece.shape) == [region_length(axis) for axis in axes]
    assert torch.equal(piece, expected)
    target = torch.zeros(shape)
    put(target, axes, piece)
    assert torch.equal(target, torch.where(torch.isin(whole, piece.flatten()), whole, 0))


def test_symbols_are_replaced_with_their_values():
    batch = symbol("batch")
    axes = evaluate_regions([(Join(((Span(2 * batch, batch, 2 * batch),), ())),)], {"batch": 3})
    assert axes == ((Join(((Span(6, 3, 6),), ())),),)


@pytest.mark.parametrize(
    ("axes", "piece", "what"),
    [
        (((Span(4, 0, 2),),), (2,), "is written through a region of"),
        (((Span(3, 0, 2),),), (3,), "fills a region of"),
        (((Span(3, 2, 4),),), (2,), "not within"),
        (((Span(3, -1, 1),),), (2,), "not within"),
    ],
)
def test_tensors_that_do_not_fit_are_an_error(axes, piece, what):
    with pytest.raises(ParframeError, match=what):
        put(torch.zeros(3), axes, torch.zeros(piece))

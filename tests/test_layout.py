"""Regions locate the pieces of a device in a tensor dim of factors and segments."""

import numpy
from hypothesis import given
from hypothesis import strategies as st

from parframe.layout import (
    Leaf,
    Range,
    Segments,
    dim_size,
    local_size,
    region_length,
    region_of,
    region_runs,
    region_size,
)
from parframe.partitioning.chain_parts import split
from parframe.partitioning.cuts import Cut

DIMS = {"a": 2, "b": 3, "c": 4, "d": 1}

leaf = st.sampled_from(sorted(DIMS)).map(lambda dim: Leaf(dim, DIMS[dim]))


def _axes(factor):
    return st.lists(factor, min_size=0, max_size=3).map(tuple)


axes = _axes(
    st.recursive(
        leaf,
        lambda inner: st.lists(_axes(inner), min_size=1, max_size=3).map(
            lambda parts: Segments(tuple(parts))
        ),
        max_leaves=6,
    )
)


def _piece(dim):
    return st.tuples(st.integers(0, DIMS[dim]), st.integers(0, DIMS[dim])).map(
        lambda ends: Range(min(ends), max(ends))
    )


pieces = st.fixed_dictionaries({}, optional={dim: _piece(dim) for dim in DIMS})


def chosen(axis, local_pieces):
    """Return a mask of the positions that the pieces select, by brute force."""
    if not axis:
        return numpy.ones(1, bool)
    head, rest = axis[0], chosen(axis[1:], local_pieces)
    if isinstance(head, Leaf):
        span = local_pieces.get(head.dim, Range(0, head.size))
        here = numpy.array([span.start <= i < span.stop for i in range(head.size)], bool)
    else:
        here = numpy.concatenate([chosen(part, local_pieces) for part in head.parts])
    return (here[:, None] & rest[None, :]).reshape(-1)


@given(axes, pieces)
def test_runs_are_the_positions_that_the_pieces_select(axis, local_pieces):
    found = region_of(axis, local_pieces, {})
    expected = numpy.flatnonzero(chosen(axis, local_pieces))
    actual = [i for start, stop in region_runs(found) for i in range(start, stop)]
    assert actual == expected.tolist()
    assert region_size(found) == dim_size(axis)
    assert region_length(found) == local_size(axis, local_pieces) == len(expected)


@given(axes, pieces)
def test_a_region_in_a_devices_tensor_is_relative_to_its_start(axis, local_pieces):
    inner = {dim: split(span.length, (1, 1))[1] for dim, span in local_pieces.items()}
    within = {
        dim: Range(local_pieces[dim].start + part.start, local_pieces[dim].start + part.stop)
        for dim, part in inner.items()
    }
    local = chosen(axis, local_pieces)
    both = chosen(axis, within)[local]
    actual = [
        i
        for start, stop in region_runs(region_of(axis, within, local_pieces))
        for i in range(start, stop)
    ]
    assert actual == numpy.flatnonzero(both).tolist()


@given(st.integers(0, 40), st.integers(1, 9))
def test_parts_are_in_order_and_differ_by_one_at_most(size, parts):
    ranges = split(size, (1,) * parts)
    nonempty = [r for r in ranges if r.length]
    assert [r.start for r in nonempty[1:]] == [r.stop for r in nonempty[:-1]]
    assert sum(r.length for r in ranges) == size
    lengths = [r.length for r in ranges]
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 40))
def test_the_rectangles_of_a_chain_tile_it(heads, group, degree):
    cut = Cut(0, (), ("tp",), ("k", "g"), (heads, group), (1,) * degree)
    count = numpy.zeros((heads, group), int)
    for piece in cut.groups[0]:
        k, g = piece["k"], piece["g"]
        count[k.start : k.stop, g.start : g.stop] += 1
    assert (count == 1).all()


@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_cut_within_another_tiles_each_of_its_parts(heads, group, outer, inner):
    first = Cut(0, (), ("dp",), ("k", "g"), (heads, group), (1,) * outer)
    second = Cut(1, (), ("tp",), ("k", "g"), (heads, group), (1,) * inner, first)
    for whole, parts in zip(first.groups[0], second.groups, strict=True):
        count = numpy.zeros((heads, group), int)
        for piece in parts:
            count[piece["k"].start : piece["k"].stop, piece["g"].start : piece["g"].stop] += 1
        expected = numpy.zeros((heads, group), int)
        expected[whole["k"].start : whole["k"].stop, whole["g"].start : whole["g"].stop] = 1
        assert (count == expected).all()

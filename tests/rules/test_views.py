"""Views and slices of random shapes: the rules hold and say as much as they can."""

from __future__ import annotations

import random
from math import prod

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parframe.graph import Operator, Ref, Tensor
from parframe.rules import Site, bind
from parframe.rules.table import RULES, rule_for
from parframe.sizes import symbol
from rules.calls import make_call
from rules.oracle import attempt, prove_labels, prove_partial, splittable

aten = torch.ops.aten
factors = st.lists(st.integers(1, 4), min_size=1, max_size=6)


def grouped(draw, primes: list[int]) -> list[int]:
    """The factors multiplied together in random runs, with axes of size one between them."""
    shape: list[int] = []
    rest = list(primes)
    while rest:
        count = draw(st.integers(1, len(rest)))
        shape.append(prod(rest[:count]))
        rest = rest[count:]
        if draw(st.booleans()):
            shape.append(1)
    return shape


@st.composite
def views(draw) -> tuple[list[int], list[int]]:
    primes = draw(factors)
    return grouped(draw, primes), grouped(draw, primes)


@st.composite
def odd_views(draw) -> tuple[list[int], list[int]]:
    primes = draw(factors)
    return grouped(draw, primes), grouped(draw, draw(st.permutations(primes)))


def called(target, *args):
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    return make_call(target, args, {}, target(*args)), tensors


def prove(target, *args) -> list[str]:
    call, _ = called(target, *args)
    tried = attempt(call, RULES[call.target])
    assert tried is not None, str(call)
    order = random.Random(0)
    prove_labels(tried, order, pairs=3)
    prove_partial(tried)
    return splittable(tried)


@settings(max_examples=60, deadline=None)
@given(views())
def test_a_view_of_common_factors_passes_every_factor(shapes):
    source, target = shapes
    x = torch.randn(source, dtype=torch.float64)
    prove(aten.view.default, x, target)
    call, _ = called(aten.view.default, x, target)
    assert not bind(RULES["aten.view.default"], call.site).whole


@settings(max_examples=60, deadline=None)
@given(odd_views())
def test_a_view_of_other_factors_is_true(shapes):
    source, target = shapes
    prove(aten.reshape.default, torch.randn(source, dtype=torch.float64), target)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_slice_is_true(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    x = torch.randn(shape, dtype=torch.float64)
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    start = data.draw(st.one_of(st.none(), st.integers(-8, 8)))
    end = data.draw(st.one_of(st.none(), st.integers(-8, 8), st.just(2**63 - 1)))
    prove(aten.slice.Tensor, x, dim, start, end, data.draw(st.integers(1, 3)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_select_split_and_cat_are_true(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = torch.randn(shape, dtype=torch.float64)
    prove(aten.select.int, x, dim, data.draw(st.integers(-shape[dim], shape[dim] - 1)))
    cuts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    parts = torch.randn([*shape, 1], dtype=torch.float64).movedim(-1, dim)
    parts = parts.expand([sum(cuts) if n == 1 else n for n in parts.shape])
    sizes = list(parts.shape)
    if sizes[dim] == sum(cuts):
        prove(aten.split_with_sizes.default, parts.contiguous(), cuts, dim)
    prove(aten.cat.default, [x, torch.randn(shape, dtype=torch.float64)], dim)


def site(target: str, source, result, **args) -> Site:
    operator = Operator("view", target, {"self": Ref("x"), **args}, ("y",))
    return Site(operator, (Tensor("x", source, "float32"),), (Tensor("y", result, "float32"),))


BATCH, SEQUENCE = symbol("batch"), symbol("sequence")


def test_heads_come_out_of_a_projection_with_symbolic_batch_and_sequence():
    call = site("aten.view.default", (BATCH, SEQUENCE, 64), (BATCH, SEQUENCE, 8, 8))
    found = bind(rule_for("aten.view.default"), call)
    assert len(found.inputs[0][2]) == 2
    assert found.inputs[0][2] == found.outputs[0][2] + found.outputs[0][3]
    assert found.inputs[0][:2] == found.outputs[0][:2]


def test_a_symbolic_batch_joins_heads_and_leaves_them():
    joined = site("aten.reshape.default", (BATCH, 8, SEQUENCE, 4), (8 * BATCH, SEQUENCE, 4))
    found = bind(rule_for("aten.reshape.default"), joined)
    assert found.outputs[0][0] == found.inputs[0][0] + found.inputs[0][1]
    back = site("aten.view.default", (8 * BATCH, SEQUENCE, 4), (BATCH, 8, SEQUENCE, 4))
    found = bind(rule_for("aten.view.default"), back)
    assert found.inputs[0][0] == found.outputs[0][0] + found.outputs[0][1]


def test_a_slice_to_a_symbolic_size_keeps_a_range():
    call = site("aten.slice.Tensor", (64, 8), (SEQUENCE, 8), dim=0, start=0, end=SEQUENCE, step=1)
    found = bind(rule_for("aten.slice.Tensor"), call)
    assert found.dropped
    assert not found.whole


def test_an_end_beyond_a_symbolic_size_is_the_whole_axis():
    call = site(
        "aten.slice.Tensor", (BATCH, SEQUENCE), (BATCH, SEQUENCE), dim=1, start=0, end=2**63 - 1
    )
    found = bind(rule_for("aten.slice.Tensor"), call)
    assert found.inputs == found.outputs
    assert not found.whole

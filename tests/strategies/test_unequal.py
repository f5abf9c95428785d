"""Devices of unequal memory: what is split over an axis with shares is split in their ratio."""

from math import prod

import models
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parframe.checking import check, device_memory
from parframe.errors import ParframeError
from parframe.loading import load
from parframe.mesh import Mesh
from parframe.partitioning import partition
from parframe.partitioning.chain_parts import rectangle, rectangles, split
from parframe.plan.plan_json import dump_plan
from parframe.plan.plan_reader import parse_plan
from parframe.simulation import verify
from parframe.sizes import evaluate, symbol
from parframe.spec import Spec

some_shares = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)


@given(st.integers(0, 40), some_shares)
def test_parts_tile_in_the_ratio_of_the_shares(size: int, shares: tuple[int, ...]) -> None:
    parts = split(size, shares)
    assert [i for part in parts for i in range(part.start, part.stop)] == [*range(size)]
    if size >= len(shares):
        assert all(part.length > 0 for part in parts)
    if size % sum(shares) == 0:
        assert [part.length for part in parts] == [s * size // sum(shares) for s in shares]


@given(st.integers(1, 40), some_shares)
def test_parts_of_a_symbolic_size_tile_too(size: int, shares: tuple[int, ...]) -> None:
    parts = split(symbol("batch"), shares)
    numbers = [[evaluate(end, {"batch": size}) for end in (p.start, p.stop)] for p in parts]
    assert [i for start, stop in numbers for i in range(start, stop)] == [*range(size)]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), some_shares)
def test_rectangles_of_a_chain_tile_it(sizes: tuple[int, ...], shares: tuple[int, ...]) -> None:
    places = [
        place
        for rectangle in rectangles(sizes, shares)
        for place in _places([range(span.start, span.stop) for span in rectangle])
    ]
    assert len(places) == len(set(places)) == prod(sizes)


@pytest.mark.parametrize("sizes", [(7,), (2, 3), (symbol("batch"),), (symbol("batch"), 4)])
@pytest.mark.parametrize("shares", [(1, 1, 1), (1, 2, 4)])
def test_one_rectangle_is_one_of_all(sizes, shares) -> None:
    alone = tuple(rectangle(sizes, shares, index) for index in range(len(shares)))
    assert alone == rectangles(sizes, shares)


def _places(ranges: list[range]) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = [()]
    for axis in ranges:
        places = [(*place, i) for place in places for i in axis]
    return places


@pytest.mark.parametrize(
    ("sizes", "shares", "heads"),
    [
        ((8, 1), (3, 1), (6, 2)),
        ((4, 2), (3, 1), (6, 2)),
        ((2, 4), (3, 1), (6, 2)),
        ((1, 8), (5, 2, 1), (5, 2, 1)),
        ((2, 4), (2, 1, 1), (4, 2, 2)),
        ((2, 4), (1, 1, 2), (2, 2, 4)),
        ((4, 2), (5, 2, 1), (4, 2, 2)),
    ],
)
def test_heads_go_in_the_ratio_also_where_there_are_fewer_key_value_heads(
    sizes: tuple[int, ...], shares: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    lengths = tuple(prod(span.length for span in part) for part in rectangles(sizes, shares))
    assert lengths == heads


@pytest.mark.parametrize(
    ("axes", "shares", "expected"),
    [
        ((("tp", 2),), {"tp": (3, 1, 1)}, "has 3 shares, and the axis has 2 devices"),
        ((("tp", 2),), {"tpp": (3, 1)}, "no axis 'tpp' (did you mean 'tp'?)"),
        ((("tp", 2),), {"tp": (3, 0)}, "a share is 0; give whole numbers from 1"),
    ],
)
def test_illegal_shares_are_refused(axes, shares, expected) -> None:
    with pytest.raises(ParframeError, match=r"shares\.tp") as refused:
        Mesh(axes, shares)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[3, 1, 1]", "line 2, key 'shares.tp': has 3 shares"),
        ("[3, 0]", "line 2, key 'shares.tp': a share is 0"),
        ("[3, 1.5]", "line 2, key 'shares.tp': a share is 1.5"),
        ("3", "line 2, key 'shares.tp': is 3; give a list"),
        ("[]", "line 2, key 'shares.tp': is an empty list"),
    ],
)
def test_a_spec_with_wrong_shares_is_refused_with_line_and_key(given: str, expected: str) -> None:
    with pytest.raises(ParframeError) as refused:
        Spec.parse(f'parallel = "TP2"\nshares = {{ tp = {given} }}').placing()
    assert expected in str(refused.value)


CASES = [
    ("TP2", {"tp": (3, 1)}, {}),
    ("TP3", {"tp": (2, 1, 1)}, {}),
    ("TP3", {"tp": (5, 2, 1)}, {"num_key_value_heads": 1}),
    ("TP3", {"tp": (5, 2, 1)}, {"num_key_value_heads": 2}),
    ("TP2SP", {"tp": (3, 1)}, {"num_key_value_heads": 2}),
    ("DP2", {"dp": (2, 1)}, {}),
    ("PP2TP2DP2", {"tp": (3, 1), "dp": (2, 1)}, {"tie_word_embeddings": True}),
    ("PP2", {"pp": (3, 1)}, {"num_hidden_layers": 4}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "shares", "changes"), CASES, ids=str)
def test_plans_for_unequal_devices_are_proved(parallel, shares, changes) -> None:
    graph = load(models.tiny_config("llama", **changes))
    plan = partition(graph, Spec(parallel=parallel, shares=shares))
    report = check(plan)
    assert report.ok, report.findings[:3]
    assert verify(plan).ok
    assert dump_plan(parse_plan(dump_plan(plan))) == dump_plan(plan)


@pytest.mark.slow
def test_memory_shows_the_ratio() -> None:
    config = models.tiny_config("llama", hidden_size=16, head_dim=16, intermediate_size=512)
    plan = partition(load(config), Spec(parallel="TP2", shares={"tp": (3, 1)}))
    first, second = (device_memory(plan, rank).weights for rank in range(2))
    assert first == pytest.approx(3 * second, rel=0.01)


@pytest.mark.slow
def test_stages_are_as_heavy_as_their_shares() -> None:
    graph = load(models.tiny_config("llama", num_hidden_layers=8, vocab_size=8))
    plan = partition(graph, Spec(parallel="PP2", shares={"pp": (3, 1)}))
    stages = [
        {part.name.split(".")[2] for part in plan.program(rank).parameters if ".mlp." in part.name}
        for rank in range(2)
    ]
    assert [len(layers) for layers in stages] == [6, 2]

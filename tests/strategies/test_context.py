"""Context parallelism: the sequence split over devices, keys and values brought together."""

from functools import cache

import attrs
import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from plan_assertions import assert_equal, count_communication
from torch import nn

from parframe.checking import check
from parframe.layout import region_runs
from parframe.loading import load
from parframe.partitioning import partition
from parframe.partitioning.chain_parts import mirrored
from parframe.simulation import simulate, verify
from parframe.simulation.device_coroutine import evaluate_sizes
from parframe.simulation.regions import evaluate_regions
from parframe.spec import Spec, Stage

pytestmark = pytest.mark.slow

FAMILIES = ("llama", "gemma2", "bert", "gpt2")
COMPOSITES = ("CP2", "CP3", "CP2TP2", "DP2CP2TP2", "PP2CP2", "CP2TP2SP")


@cache
def graph_of(name):
    return load(models.tiny_config(name))


@cache
def expected_of(name, rows, length):
    """A family's model, inputs and what transformers itself returns for them."""
    model = models.tiny_model(name)
    inputs = {"input_ids": models.tokens(rows, length)}
    return model, inputs, models.reference_outputs(model, inputs).logits


def assert_computes(plan, name, *lengths):
    """The plan passes the checks and computes what transformers does for these lengths."""
    report = check(plan)
    assert report.ok, report.findings[:3]
    for length in lengths:
        model, inputs, expected = expected_of(name, 3, length)
        assert_equal(simulate(plan, inputs, model, "float64").logits, expected, 1e-11)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_split_sequence_computes_what_transformers_computes(name, composite):
    plan = partition(graph_of(name), composite)
    assert_computes(plan, name, 11, 2, 1)
    assert verify(plan).ok


def test_only_keys_and_values_are_gathered():
    assert count_communication(partition(graph_of("llama"), "CP2")) == {"all_gather": 2 * 2}


def ring(composite):
    return Spec(parallel=composite, strategies={"cp": {"attention": "ring"}})


def zigzag(composite, attention="all_gather"):
    options = {"placement": "zigzag", "attention": attention}
    return Spec(parallel=composite, strategies={"cp": options})


@pytest.mark.parametrize("name", [*FAMILIES, "mistral"])
@pytest.mark.parametrize("composite", ["CP2", "CP3", "CP5", "DP2CP2TP2", "PP2CP2", "CP2TP2SP"])
def test_a_ring_computes_what_transformers_computes(name, composite):
    plan = partition(graph_of(name), ring(composite))
    assert_computes(plan, name, 11, 2, 1)
    assert verify(plan).ok


def test_a_ring_gathers_nothing():
    assert count_communication(partition(graph_of("llama"), ring("CP2"))) == {"ring_attention": 2}


@pytest.mark.parametrize("attention", ["all_gather", "ring"])
@pytest.mark.parametrize(
    ("name", "composite"),
    [("llama", "CP2"), ("llama", "DP2CP2TP2"), ("gemma2", "CP3"), ("mistral", "CP4"),
     ("bert", "PP2CP2"), ("gpt2", "CP2TP2SP"), ("phi3", "CP5")],
)  # fmt: skip
def test_a_zigzag_computes_what_transformers_computes(name, composite, attention):
    """Also where the sequence is odd, or shorter than two parts for each device."""
    plan = partition(graph_of(name), zigzag(composite, attention))
    assert_computes(plan, name, 11, 4, 1)
    assert verify(plan).ok


@pytest.mark.parametrize("attention", ["all_gather", "ring"])
def test_stages_may_share_a_zigzag_among_other_numbers_of_devices(attention):
    stages = [Stage(0, 0, {"cp": 2}), Stage(1, 1, {"cp": 3})]
    plan = partition(graph_of("llama"), attrs.evolve(zigzag("PP2CP3", attention), stages=stages))
    assert_computes(plan, "llama", 11, 4, 1)


def test_unequal_devices_share_a_zigzag_in_their_ratio():
    plan = partition(
        graph_of("llama"), attrs.evolve(zigzag("CP3", "ring"), shares={"cp": (4, 2, 1)})
    )
    assert_computes(plan, "llama", 17, 4, 1)


def test_a_zigzag_communicates_as_much_as_contiguous_parts():
    assert count_communication(partition(graph_of("llama"), zigzag("CP2"))) == {"all_gather": 2 * 2}
    assert count_communication(partition(graph_of("llama"), zigzag("CP2", "ring"))) == {
        "ring_attention": 2
    }


def pairs(plan, length):
    """For every device, how many pairs of a query that it has and a key are visible."""
    symbols = {"batch": 1, "sequence": length}
    found = []
    for device in plan.devices:
        program = plan.program(device.rank)
        (part,) = [part for part in program.inputs if part.whole == "input_ids"]
        (_, region) = evaluate_regions(part.region, evaluate_sizes(device, symbols))
        found.append(sum(p + 1 for start, stop in region_runs(region) for p in range(start, stop)))
    assert sum(found) == length * (length + 1) // 2
    return found


@pytest.mark.parametrize("degree", [2, 4, 5])
def test_a_zigzag_balances_causal_attention(degree):
    even = pairs(partition(graph_of("llama"), zigzag(f"CP{degree}")), 4001)
    uneven = pairs(partition(graph_of("llama"), f"CP{degree}"), 4001)
    assert max(even) / min(even) < 1.005
    assert max(uneven) / min(uneven) > degree


class Statistics(nn.Module):
    """Sums, extremes and concatenations along the sequence, and views of it with others."""

    def __init__(self):
        super().__init__()
        self.up, self.kind = nn.Linear(6, 6), nn.Embedding(4, 6)

    def forward(self, x):
        batch, length, _ = x.shape
        kinds = torch.zeros(batch, length, dtype=torch.long)
        y = self.up(x) + self.kind(kinds) + torch.arange(length).view(1, -1, 1).to(x.dtype)
        longer = torch.cat([y, y], 1)
        return (y, y.mean(1), y.amax(1), torch.softmax(y, 1), y.flatten(0, 1) * 2, longer,
                y[:, 1:], y[:, -1])  # fmt: skip


@pytest.mark.parametrize("composite", ["CP2", "CP3", "DP2CP4"])
def test_what_is_computed_along_a_zigzag_is_right(composite):
    model = models.randomize(Statistics().double())
    inputs = {"x": torch.randn(2, 7, 6).double()}
    plan = partition(load(model, inputs, {"x": {0: "batch", 1: "sequence"}}), zigzag(composite))
    report = check(plan)
    assert report.ok, report.findings[:3]
    for length in (7, 2):
        inputs = {"x": torch.randn(2, length, 6).double()}
        pairs = zip(simulate(plan, inputs, model), model(**inputs), strict=True)
        for actual, expected in pairs:
            assert_equal(actual, expected, 1e-11)


@given(
    front=some.integers(0, 9),
    back=some.integers(0, 9),
    shares=some.lists(some.integers(1, 3), min_size=1, max_size=5),
)
def test_parts_of_both_halves_tile_them_in_opposite_orders(front, back, shares):
    parts = mirrored((front, back), tuple(shares))
    firsts = [i for one, _ in parts for i in range(one.start, one.stop)]
    seconds = [i for _, other in reversed(parts) for i in range(other.start, other.stop)]
    assert (firsts, seconds) == (list(range(front)), list(range(back)))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_sequence_of_any_modules_attention_is_split(attention):
    model = models.tiny_model("gpt2", attention=attention, use_cache=False)
    inputs = {"input_ids": models.tokens(3, 11)}
    plan = partition(load(model, inputs, {"input_ids": {0: "batch", 1: "sequence"}}), "CP3TP2")
    assert check(plan).ok
    for length in (11, 2):
        inputs = {"input_ids": models.tokens(3, length)}
        with torch.no_grad():
            expected = model(**inputs).logits
        assert_equal(simulate(plan, inputs, model)["logits"], expected, 1e-11)

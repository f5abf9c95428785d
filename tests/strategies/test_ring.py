"""Ring attention, block by block, against attention over all keys at once."""

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from plan_assertions import assert_equal, count_communication
from torch import nn

import parframe.ops.attention
from parframe.checking import check
from parframe.errors import ParframeError
from parframe.loading import load
from parframe.ops import ring_attention
from parframe.partitioning import partition
from parframe.simulation import simulate, verify
from parframe.spec import Spec

BATCH, KV_HEADS, GROUP, SIZE = 2, 2, 3, 4


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def ring(composite):
    return Spec(parallel=composite, strategies={"cp": {"attention": "ring"}})


def arguments(seed, length, sinks, mask, **settings):
    """Arguments of attention; positions in random order, so that masks depend on them alone."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(length, generator=generator) for _ in range(BATCH)]
    positions = torch.stack(rows)
    masks = {
        "none": None,
        "padding": torch.rand(BATCH, 1, 1, length, generator=generator) > 0.3,
        "added": drawn(seed + 4, BATCH, KV_HEADS * GROUP, 1, length),
        "infinite": torch.where(
            torch.arange(length) % 2 == 0, -torch.inf, drawn(seed + 5, BATCH, 1, 1, length)
        ),
    }
    return {
        "query": 3 * drawn(seed, BATCH, KV_HEADS * GROUP, length, SIZE),
        "key": 3 * drawn(seed + 1, BATCH, KV_HEADS, length, SIZE),
        "value": drawn(seed + 2, BATCH, KV_HEADS, length, SIZE + 1),
        "query_positions": positions,
        "key_positions": positions,
        "sinks": drawn(seed + 3, KV_HEADS * GROUP) if sinks else None,
        "mask": masks[mask],
        "scale": 0.7,
        **settings,
    }


def cut(given, lengths):
    """Return the part of each rank if the sequence is cut into pieces of these lengths."""
    axes = {"query": 2, "key": 2, "value": 2, "query_positions": 1, "key_positions": 1, "mask": 3}
    pieces = {
        slot: torch.split(given[slot], lengths, axis)
        for slot, axis in axes.items()
        if given[slot] is not None
    }
    travels = tuple(s for s in ("key", "value", "key_positions", "mask") if s in pieces)
    return [
        {**given, **{slot: own[i] for slot, own in pieces.items()}, "travels": travels}
        for i in range(len(lengths))
    ]


@settings(max_examples=60, deadline=None)
@given(
    lengths=some.lists(some.integers(0, 4), min_size=1, max_size=4).filter(sum),
    causal=some.booleans(),
    window=some.sampled_from([None, 1, 3]),
    softcap=some.sampled_from([None, 2.0]),
    sinks=some.booleans(),
    mask=some.sampled_from(["none", "padding", "added"]),
    seed=some.integers(0, 1000),
)
def test_a_ring_gives_what_attention_gives(lengths, causal, window, softcap, sinks, mask, seed):
    whole = arguments(
        seed, sum(lengths), sinks, mask, causal=causal, window=window, softcap=softcap
    )
    expected = torch.ops.parframe.attention(**whole)
    assert_equal(torch.cat(ring_attention.simulate(cut(whole, lengths)), 1), expected, 1e-12)


def test_a_block_that_a_mask_of_minus_infinity_hides_adds_nothing():
    whole = arguments(7, 5, False, "infinite", causal=False, window=None, softcap=None)
    expected = torch.ops.parframe.attention(**whole)
    assert_equal(torch.cat(ring_attention.simulate(cut(whole, [1, 1, 1, 2])), 1), expected, 1e-12)


def test_no_rank_has_more_than_one_block_at_once(monkeypatch):
    """No tensor in a ring is as long as the sequence, so nothing is gathered on the way."""
    met = []
    attention_logits = parframe.ops.attention.attention_logits

    def watched(query, key, *rest, **more):
        met.append((query.shape[2], key.shape[2]))
        return attention_logits(query, key, *rest, **more)

    monkeypatch.setattr("parframe.ops.ring_attention.attention_logits", watched)
    whole = arguments(1, 5, True, "none", causal=True, window=None, softcap=None)
    ring_attention.simulate(cut(whole, [2, 0, 3]))
    assert met == [(2, 2), (2, 3), (0, 2), (0, 3), (3, 3), (3, 2)]


class WithSinks(nn.Module):
    """Two layers of attention by positions, with sinks and a window."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(24, 6 * 4 + 2 * 2 * 4) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(24, 24) for _ in range(2))
        self.sinks = nn.ParameterList(torch.randn(6) for _ in range(2))

    def forward(self, x):
        batch, length, _ = x.shape
        positions = torch.arange(length).unsqueeze(0)
        for qkv, out, sinks in zip(self.qkv, self.out, self.sinks, strict=True):
            query, key, value = qkv(x).split((24, 8, 8), -1)
            y = torch.ops.parframe.attention(
                query.view(batch, length, 6, 4).transpose(1, 2),
                key.view(batch, length, 2, 4).transpose(1, 2),
                value.view(batch, length, 2, 4).transpose(1, 2),
                positions, positions, sinks, None, 0.5, True, 3, None,
            )  # fmt: skip
            x = x + out(y.reshape(batch, length, 24))
        return x


@pytest.mark.parametrize("composite", ["CP2", "CP3TP2", "DP2CP4", "PP2CP2TP2"])
def test_sinks_take_part_once_on_every_device(composite):
    torch.manual_seed(0)
    model = WithSinks().double()
    graph = load(model, {"x": drawn(0, 3, 11, 24)}, {"x": {0: "batch", 1: "sequence"}})
    plan = partition(graph, ring(composite))
    assert count_communication(plan)["ring_attention"] >= 1
    report = check(plan)
    assert report.ok, report.findings[:3]
    for length in (11, 3, 1):
        x = drawn(length, 3, length, 24)
        assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)


class Masked(nn.Module):
    """Attention without positions, some keys masked."""

    def forward(self, x, mask):
        return torch.ops.parframe.attention(
            x * 2, x.sin(), x.cos(), None, None, None, mask, 0.5, False, None, None
        )


def test_a_mask_of_keys_goes_round_with_them():
    inputs = {"x": drawn(0, 2, 2, 5, 4), "mask": drawn(2, 2, 1, 1, 5)}
    names = {"x": {2: "sequence"}, "mask": {3: "sequence"}}
    plan = partition(load(Masked(), inputs, names), ring("CP3"))
    (operator,) = [op for op in plan.program(0).operators if "travels" in op.args]
    assert operator.args["travels"] == ("key", "value", "mask")
    assert check(plan).ok
    assert_equal(simulate(plan, inputs), Masked()(**inputs), 1e-11)


def test_each_block_is_counted_as_often_as_it_is_passed_on():
    torch.manual_seed(0)
    model = WithSinks().double()
    graph = load(model, {"x": drawn(0, 3, 12, 24)}, {"x": {0: "batch", 1: "sequence"}})
    plan = partition(graph, ring("CP4"))
    keys, positions = 2 * 3 * 4, 3
    (traffic,) = check(plan, dtype="float64", batch=1, sequence=12).traffic
    (seen,) = verify(plan, model, batch=1, sequence=12).communication
    passed = 2 * 3 * (2 * keys * 8 + positions * 8)  # in two layers, to three others
    assert (traffic.kind, traffic.count, traffic.bytes) == ("ring_attention", 2, 4 * passed)
    assert (seen.kind, seen.count, seen.bytes) == ("ring_attention", 2, passed)


def test_an_argument_that_does_not_fit_is_reported_with_its_operator():
    torch.manual_seed(0)
    graph = load(WithSinks().double(), {"x": drawn(0, 3, 12, 24)}, {"x": {1: "sequence"}})
    plan = partition(graph, ring("CP2"))
    (program,) = plan.programs.values()
    wrong = tuple(
        attrs.evolve(op, args={**op.args, "scale": "wide"}) if "travels" in op.args else op
        for op in program.operators
    )
    plan = attrs.evolve(plan, programs={program.name: attrs.evolve(program, operators=wrong)})
    with pytest.raises(ParframeError, match=r"rank 0, .*: parframe.ring_attention failed: "):
        simulate(plan, {"x": drawn(0, 3, 12, 24)}, WithSinks().double())


def test_a_ring_that_no_operator_can_make_is_refused():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    graph = load(model, {"input": drawn(0, 2, 5, 4)}, {"input": {0: "batch", 1: "sequence"}})
    message = "axis cp: no operator of the model has the distributed form 'ring'; let the devices"
    with pytest.raises(ParframeError, match=message):
        partition(graph, ring("CP2"))

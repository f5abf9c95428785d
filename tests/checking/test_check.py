"""Checks of plans without a device: correct plans have no findings, faults have messages."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from random import Random

import attrs
import handwritten
import pytest
import torch
from faults import (
    FAULTS,
    add_probes,
    change_on_one_rank,
    replace_args,
    replace_operator,
    use_broadcasts,
)
from hypothesis import given
from hypothesis import strategies as some
from models import FAMILIES
from tiny_plans import COMPOSITES, RINGS, graph_of, plan_of, ring_of

import parframe
from parframe.checking import KINDS, check, device_memory, memory_sizes
from parframe.checking.reductions import tiling_fault
from parframe.checking.shard_regions import region_ranges
from parframe.graph import Block, Call, Input, Operator, Ref, Tensor
from parframe.layout import Leaf, Range, Segments, Span, region_of
from parframe.mesh import Mesh
from parframe.partitioning import partition_placing
from parframe.sizes import offset, parse_size
from parframe.strategy import Placing, Split

CORRECT = [(model, composite) for model, found in COMPOSITES.items() for composite in found]


def findings_of(plan):
    return [str(finding) for finding in check(plan).findings]


@pytest.mark.parametrize(("model", "composite"), CORRECT)
def test_a_correct_plan_has_no_findings(model, composite):
    assert findings_of(plan_of(model, composite)) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", [*FAMILIES, "resnet"])
@pytest.mark.parametrize(
    "composite", ["TP2", "TP3", "TP8", "PP2", "DP2", "TP2PP2", "TP2SP", "PP2TP2DP2"]
)
def test_a_correct_plan_of_any_model_has_no_findings(model, composite):
    assert findings_of(plan_of(model, composite)) == []


@pytest.mark.parametrize("model", COMPOSITES)
@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize(
    "names", [("hidden",), ("hidden", "heads", "ffn", "vocab"), ("ffn", "sequence")], ids=" ".join
)
def test_a_correct_plan_of_any_splits_has_no_findings(model, degree, names):
    splits = tuple(Split(name, ("tp",)) for name in names)
    placing = Placing(Mesh((("tp", degree),)), splits)
    assert findings_of(partition_placing(graph_of(model), placing)) == []


@pytest.mark.parametrize(
    ("model", "composite"), [(model, c) for model, found in RINGS.items() for c in found]
)
def test_a_correct_ring_has_no_findings(model, composite):
    assert findings_of(ring_of(model, composite)) == []


def test_a_ring_over_more_axes_than_the_sequence_is_a_finding():
    placing = Placing(
        Mesh((("cp", 2), ("spare", 2))),
        (Split("sequence", ("cp",)),),
        distributed_forms={"cp": ("ring",)},
    )
    plan = partition_placing(graph_of("llama"), placing)
    (program,) = plan.programs.values()
    ring = next(op for op in program.operators if "travels" in op.args)
    wrong = replace_operator(program, ring, replace_args(ring, axes=("cp", "spare")))
    plan = attrs.evolve(plan, programs={program.name: wrong})
    (finding, *_) = check(plan).findings
    assert (finding.kind, finding.operator) == ("collective", "model.layers.0/attention")
    assert finding.message == "the ranks' parts of sequence overlap"


def test_keys_with_positions_of_other_keys_are_a_finding():
    plan = FAULTS["distributed_with_the_positions_of_another_rank"](
        ring_of("llama", "CP3"), Random(0)
    )
    assert plan is not None
    (finding,) = check(plan).findings
    assert finding.kind == "type"
    assert finding.message.startswith("sequence is next_sequence_start to")


def test_decomposed_operators_are_checked_against_the_original_model():
    graph = graph_of("gpt2")
    placing = Placing(Mesh((("tp", 3),)), (Split("hidden", ("tp",)),))
    plan = partition_placing(graph, placing)
    assert any("layer_norm." in op.origin for op in plan.program(0).operators)
    assert findings_of(attrs.evolve(plan, graph=graph)) == []


@pytest.mark.parametrize(
    "plan",
    [handwritten.tensor_parallel(2), handwritten.tensor_parallel(3, 2), handwritten.pipeline()],
    ids=["TP2", "TP3DP2", "PP2"],
)
def test_a_correct_plan_made_by_hand_has_no_findings(plan):
    assert findings_of(plan) == []


def test_stages_may_be_joined_by_broadcasts():
    plan = use_broadcasts(plan_of("llama", "PP2TP2DP2"))
    assert plan is not None
    assert findings_of(plan) == []


def test_a_weight_may_be_sliced_and_gathered():
    plan = add_probes(plan_of("llama", "PP2TP2DP2"), ["tp", "dp"])
    assert plan is not None
    assert findings_of(plan) == []


def swapped(program):
    first, second = program.operators[:2], program.operators[2:4]
    return attrs.evolve(program, operators=(*second, *first, *program.operators[4:]))


def test_another_order_of_two_groups_without_deadlock_has_no_findings():
    plan = change_on_one_rank(add_probes(plan_of("gpt_neox", "TP2DP2"), ["tp", "dp"]), 0, swapped)
    assert findings_of(plan) == []


def test_a_deadlock_is_reported_as_its_cycle():
    plan = add_probes(plan_of("gpt_neox", "TP2DP2"), ["tp", "dp"])
    for rank in (0, 3):
        plan = change_on_one_rank(plan, rank, swapped)
    (finding,) = check(plan).findings
    assert finding.kind == "deadlock"
    assert set(finding.ranks) == {0, 1, 2, 3}
    assert finding.message == (
        "rank 0 waits in probe_dp for rank 1; rank 1 waits in probe_tp for rank 3; "
        "rank 3 waits in probe_dp for rank 2; rank 2 waits in probe_tp for rank 0, which waits"
    )


def test_a_device_that_waits_for_one_that_has_ended_is_named():
    plan = handwritten.pipeline()
    last = plan.programs["stage0"]
    silent = attrs.evolve(last, operators=last.operators[:-1])
    plan = attrs.evolve(plan, programs={**plan.programs, "stage0": silent})
    messages = [f.message for f in check(plan).findings if f.kind == "deadlock"]
    assert len(messages) == 1
    assert messages[0].endswith("for rank 0, which has ended")


def test_a_bias_added_on_every_rank_is_reported_with_its_module():
    plan = FAULTS["bias_on_every_rank"](plan_of("gpt_neox", "TP2"), Random(3))
    assert plan is not None
    finding = check(plan).findings[0]
    assert finding.kind == "partial"
    assert "bias" in finding.message
    assert finding.module.startswith("gpt_neox.layers.")


def test_every_finding_has_a_known_kind():
    assert set(KINDS) >= {"structure", "type", "partial", "matching", "deadlock", "memory"}


def test_memory_counts_weights_and_the_peak_of_activations():
    plan = handwritten.tensor_parallel(2)
    sizes = memory_sizes(plan, "float32", batch=3)
    own = device_memory(plan, 0, sizes)
    assert own.weights == 4 * (5 * 6 + 6 * 5 + 6)
    # x until its use; up and relu; relu and down
    assert own.activations == 4 * max(3 * 6 + 3 * 5, 3 * 5 + 3 * 5, 3 * 5 + 3 * 6, 3 * 6 * 2)
    assert own.cache == 0
    assert own.total == own.weights + own.activations


def test_caches_are_counted_for_every_position():
    plan = plan_of("llama", "TP2")
    sizes = memory_sizes(plan, "bfloat16", batch=2, sequence=10)
    heads, head_dim, layers = 4, 8, 3
    assert device_memory(plan, 0, sizes).cache == 2 * layers * 2 * 10 * heads * head_dim * 2 // 2


def test_a_budget_that_is_too_small_is_reported_with_bytes():
    report = check(plan_of("llama", "TP2"), budget=1000, batch=1, sequence=4)
    assert [finding.kind for finding in report.findings] == ["memory"]
    assert "the budget is 1000 B" in report.findings[0].message
    assert report.findings[0].ranks == (0, 1)


def test_invalid_sizes_and_dtypes_are_refused():
    plan = handwritten.pipeline()
    with pytest.raises(parframe.ParframeError, match="dtype"):
        check(plan, dtype="float5")
    with pytest.raises(parframe.ParframeError, match="batch"):
        check(plan, batch=0)


def test_traffic_of_a_llama_layer_is_two_all_reduces():
    (reduce,) = [t for t in check(plan_of("llama", "TP2")).traffic if t.kind == "all_reduce"]
    assert (reduce.axes, reduce.count) == (("tp",), 2 * 3 + 1)


def test_checks_use_neither_the_partitioner_nor_recorded_layouts():
    for path in Path(parframe.checking.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert "partitioning" not in (node.module or "")
            if isinstance(node, ast.Attribute):
                assert node.attr != "layouts"


HEADS, GROUP, DIM = Leaf("heads", 6), Leaf("group", 4), Leaf("head_dim", 5)
AXES = {
    "product": (HEADS, GROUP, DIM),
    "minor": (GROUP, HEADS),
    "segments": (Segments(((HEADS, GROUP, DIM), (HEADS, DIM), (HEADS, DIM))),),
}


@some.composite
def ranges(draw, size):
    start = draw(some.integers(0, size))
    return Range(start, draw(some.integers(start, size)))


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
@given(heads=ranges(6), group=ranges(4))
def test_regions_give_their_ranges_back(axis, heads, group):
    pieces = {"heads": heads, "group": group}
    found = region_ranges(axis, region_of(axis, pieces, {}), {})
    whole = {"heads": Range(0, 6), "group": Range(0, 4)}
    assert found is not None
    assert {**whole, **found} == pieces


@given(heads=ranges(6))
def test_regions_within_a_part_give_their_ranges_back(heads):
    frame = {"heads": Range(1, 6), "group": Range(0, 2)}
    inner = {"heads": Range(max(heads.start, 1), max(heads.stop, 1)), "group": Range(0, 2)}
    assert region_ranges(AXES["product"], region_of(AXES["product"], inner, frame), frame) == inner


def test_regions_across_dimensions_give_no_ranges():
    assert region_ranges(AXES["product"], (Span(120, 7, 27),), {}) is None
    assert region_ranges(AXES["product"], (Span(60, 0, 30),), {}) is None


def test_regions_with_symbols_give_their_ranges_back():
    start = offset("heads_start")
    pieces = {"heads": Range(start, start + 2)}
    assert region_ranges(AXES["segments"], region_of(AXES["segments"], pieces, {}), {}) == pieces


@pytest.mark.parametrize(
    ("boxes", "once", "wrong"),
    [
        ([((0, 2),), ((2, 5),)], True, ""),
        ([((0, 2),), ((2, 2),), ((2, 5),)], True, ""),
        ([((0, 2),), ((3, 5),)], True, "leave a gap"),
        ([((0, 3),), ((2, 5),)], True, "overlap"),
        ([((0, 2),), ((0, 2),), ((2, 5),)], True, "overlap"),
        ([((0, 2),), ((0, 2),), ((2, 5),)], False, ""),
        ([((0, 1), (0, 2)), ((0, 1), (2, 4)), ((1, 2), (0, 4))], True, ""),
        ([((0, 1), (0, 2)), ((1, 2), (2, 4))], True, "leave a gap"),
    ],
)
def test_boxes_tile_their_hull_or_not(boxes, once, wrong):
    assert tiling_fault(tuple(boxes), once) == wrong


def test_a_thousand_devices_on_one_axis_are_checked_at_once():
    plan = parframe.partition(handwritten.mlp(), "TP1024")
    start = time.perf_counter()
    assert parframe.check(plan).ok
    assert time.perf_counter() - start < 10


class Counted(torch.nn.Module):
    """Adds integers to the output of a projection with a bias."""

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(6, 8), torch.nn.Linear(8, 6)

    def forward(self, x):
        return self.down(torch.relu(self.up(x))) + torch.arange(6)


@pytest.mark.parametrize("composite", ["TP2", "DP2"])
def test_integers_may_be_added_to_floats(composite):
    inputs = {"x": torch.zeros(3, 6, dtype=torch.float64)}
    graph = parframe.load(Counted().double(), inputs, {"x": {0: "batch"}})
    assert findings_of(parframe.partition(graph, composite)) == []


def test_a_sum_that_its_rule_does_not_cover_is_right_where_nothing_is_split():
    """The sizes of its operands are not equal expressions."""
    x = Input("x", (parse_size("n"),), "float64", ("",))
    y = Input("y", (parse_size("Max(n, 2)"),), "float64", ("",))
    z = Tensor("z", (parse_size("n"),), "float64")
    args = {"self": Ref("x"), "other": Ref("y"), "alpha": 1}
    add = Operator("add", "aten.add.Tensor", args, ("z",))
    block = Block("main", ("x", "y"), (), (add,), ("z",), {"x": x, "y": y, "z": z})
    call = Call("", "main", ("x", "y"), (), ("z",))
    graph = parframe.OperatorGraph({"main": block}, (call,), {"x": x, "y": y}, "z", {})
    assert findings_of(parframe.partition(graph, "")) == []

"""Expert parallelism: every dispatch, every view of the ranks, and what is refused."""

from functools import cache

import attrs
import models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_assertions import assert_equal, count_communication

import parframe
from parframe import ParframeError, Spec
from parframe.ops import expert_dispatch
from parframe.ops.experts import local_experts

pytestmark = pytest.mark.slow

DISPATCHES = ("all_to_all", "all_gather")


@cache
def transformers_model(name):
    """A family's graph, model, inputs and what transformers itself returns."""
    model = models.tiny_model(name)
    inputs = {"input_ids": models.tokens(5, 7)}
    graph = parframe.load(models.tiny_config(name))
    return graph, model, inputs, models.reference_outputs(model, inputs).logits


def planned(graph, composite, dispatch="auto", **more):
    spec = Spec(parallel=composite, strategies={"ep": {"dispatch": dispatch}}, **more)
    plan = parframe.partition(graph, spec)
    report = parframe.check(plan)
    assert report.ok, report.findings[:3]
    return plan


@pytest.mark.parametrize("name", models.EXPERT_FAMILIES)
@pytest.mark.parametrize("composite", ["EP2", "EP4", "EP3", "EP2TP2", "EP2PP2", "EP2DP2TP2"])
def test_a_partition_computes_what_transformers_computes(name, composite):
    graph, model, inputs, expected = transformers_model(name)
    plan = planned(graph, composite)
    assert_equal(parframe.simulate(plan, inputs, model, "float64").logits, expected, 1e-11)
    assert parframe.verify(plan).ok


@pytest.mark.parametrize("name", models.EXPERT_FAMILIES)
@pytest.mark.parametrize("expert_ffn", [(), ("dp",)])
def test_experts_lie_across_the_ranks_of_other_strategies(name, expert_ffn):
    """EP = DP x TP, or TP with the experts' width over DP, as serving systems have it."""
    graph, model, inputs, expected = transformers_model(name)
    axes = ("tp",) if expert_ffn else ("dp", "tp")
    spec = Spec(parallel="DP2TP2", splits={"experts": axes, "expert_ffn": expert_ffn})
    plan = parframe.partition(graph, spec)
    assert parframe.check(plan).ok
    assert_equal(parframe.simulate(plan, inputs, model, "float64").logits, expected, 1e-11)
    shapes = {
        name: slices.local_shape
        for name, slices in plan.weights(3).items()
        if "experts" in name and name.endswith("down_proj")
    }
    experts = 8 if name == "deepseek_v3" else 6
    assert {shape[0] for shape in shapes.values()} <= {experts // 2, experts // 4, experts // 4 + 1}


@pytest.mark.parametrize("composite", ["EP8TP8", "EP8TP4DP2", "EP8PP2TP4", "DP2EP8TP4"])
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_sixty_four_devices_compute_what_one_does(composite, dispatch):
    config = models.tiny_config("mixtral", num_local_experts=8, num_hidden_layers=4)
    plan = planned(parframe.load(config), composite, dispatch)
    assert len(plan.devices) == 64 if "DP2EP" not in composite else True
    assert parframe.verify(plan, batch=9, sequence=3).ok


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize(
    "composite",
    ["CP2EP2TP2PP2DP2", "TP2DP2CP2EP2", "EP2CP2TP2SP", "PP2EP2TP2SPDP2", "DP3EP2TP3", "CP2EP3"],
)
def test_any_product_in_any_order_of_axes_computes_the_same(composite, dispatch):
    graph, model, inputs, expected = transformers_model("mixtral")
    plan = planned(graph, composite, dispatch)
    assert_equal(parframe.simulate(plan, inputs, model, "float64").logits, expected, 1e-11)
    assert parframe.verify(plan).ok


VIEWS = {
    "tensor parallelism divided for the experts": (
        (("ep", 2), ("tp", 2)),
        {"heads": ("ep", "tp"), "vocab": ("ep", "tp"), "experts": ("ep",), "expert_ffn": ("tp",)},
    ),
    "experts on the ranks of tensor parallelism": (
        (("tp", 4),),
        {"heads": ("tp",), "vocab": ("tp",), "experts": ("tp",), "expert_ffn": ()},
    ),
    "experts on the ranks of data parallelism": (
        (("dp", 3), ("tp", 2)),
        {"batch": ("dp",), "heads": ("tp",), "experts": ("dp",), "expert_ffn": ("tp",)},
    ),
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_other_systems_mean_is_a_map_of_names(view):
    mesh, splits = VIEWS[view]
    graph, model, inputs, expected = transformers_model("mixtral")
    plan = parframe.partition(graph, Spec(mesh=mesh, splits=splits))
    assert parframe.check(plan).ok
    assert_equal(parframe.simulate(plan, inputs, model, "float64").logits, expected, 1e-11)


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (2, 1), (3, 5)])
def test_decoding_fewer_tokens_than_devices(dispatch, batch, sequence):
    graph, model, _, _ = transformers_model("mixtral")
    inputs = {"input_ids": models.tokens(batch, sequence, seed=batch)}
    actual = parframe.simulate(planned(graph, "EP4TP2", dispatch), inputs, model, "float64").logits
    assert_equal(actual, models.reference_outputs(model, inputs).logits, 1e-11)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_all_tokens_may_choose_the_same_experts(dispatch):
    """The router's weights are zero, so that every choice is a tie: the first experts win."""
    graph, model, inputs, _ = transformers_model("mixtral")
    state = {n: t * 0 if "gate.weight" in n else t for n, t in model.state_dict().items()}
    one = parframe.simulate(parframe.partition(graph, ""), inputs, state, "float64").logits
    plan = planned(graph, "EP3TP2", dispatch)
    assert_equal(parframe.simulate(plan, inputs, state, "float64").logits, one, 1e-11)


def test_the_batch_is_gathered_over_the_experts_axis_alone():
    graph = transformers_model("mixtral")[0]
    plan = planned(graph, "DP2EP2", "all_gather")
    axes = {
        op.args["axes"] for op in plan.program(0).operators if op.target == "parframe.all_gather"
    }
    assert axes == {("ep",)}
    counts = count_communication(plan)
    assert (counts["all_gather"], counts["reduce_scatter"]) == (6, 2)


def test_the_router_runs_once_for_every_token():
    """Each device routes its own tokens, on whole hidden values: nothing of it is communicated."""
    plan = planned(transformers_model("mixtral")[0], "EP2TP2")
    program = plan.program(0)
    routers = [op for op in program.operators if op.target == "aten.topk.default"]
    assert len(routers) == 2
    for operator in routers:
        lies = program.layouts[operator.outputs[0]]
        assert not lies.partial


def arguments(seed, tokens, devices):
    """Return the arguments of the ranks and of the whole layer of 6 experts, 2 choices a token."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    up, down = drawn(6, 4, 8), drawn(6, 8, 4)
    firsts = [round(6 * device / devices) for device in range(devices + 1)]
    text = '["rows"]'
    plain = {"activation": text, "gates": 1, "interleaved": False, "transposed": False}
    ranks = []
    for device in range(devices):
        own = slice(firsts[device], firsts[device + 1])
        ids = torch.stack([torch.randperm(6, generator=generator)[:2] for _ in range(tokens)])
        ranks.append(
            {"hidden": drawn(tokens, 8), "ids": ids, "weights": drawn(tokens, 2), "up": up[own],
             "down": down[own], "first": firsts[device], "column": 0, **plain}
        )  # fmt: skip
    return ranks, {"up": up, "down": down, **plain}


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_dispatch_sends_no_more_than_every_token_once_for_every_choice(devices):
    ranks, whole = arguments(1, 5, devices)
    results = expert_dispatch.simulate(ranks)
    for place, own in enumerate(ranks):
        given = {slot: own[slot] for slot in ("hidden", "ids", "weights")}
        expected = local_experts(**given, **whole, first=0, column=0)
        torch.testing.assert_close(results[place], expected)
    sent = [expert_dispatch.measure_sent(ranks, place)["hidden"] for place in range(devices)]
    there_and_back = 2 * devices * 5 * 2 * 8
    assert sum(sent) <= there_and_back
    assert (sum(sent) == 0) == (devices == 1)


def test_the_report_tells_what_a_dispatch_sends():
    graph = transformers_model("mixtral")[0]
    traffic = parframe.check(planned(graph, "EP4"), batch=8, sequence=16).traffic
    (row,) = traffic
    tokens, choices, hidden, layers, bfloat16 = 8 * 16, 2, 64, 2, 2
    assert (row.kind, row.count) == ("expert_dispatch", layers)
    assert row.bytes == 2 * tokens * choices * hidden * layers * bfloat16
    proof = parframe.verify(planned(graph, "EP4"), batch=8, sequence=16)
    (row,) = proof.communication
    assert 0 < row.bytes <= 2 * tokens * choices * hidden * layers * 4


@pytest.mark.parametrize(
    ("family", "spec", "message"),
    [
        ("llama", {"parallel": "EP2"}, "no dimension 'experts' to split"),
        ("llama4_text", {"parallel": "EP2", "strategies": {"ep": {"dispatch": "all_to_all"}}},
         "no operator of the model has the distributed form 'all_to_all'"),
        ("mixtral", {"parallel": "EP2DP2", "splits": {"experts": ("ep",), "expert_ffn": ("ep",)}},
         "splits put axis ep on both experts and expert_ffn"),
        ("mixtral", {"parallel": "EP8"}, "8 devices for 6 experts"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(family, spec, message):
    with pytest.raises(ParframeError, match=message):
        parframe.partition(parframe.load(models.tiny_config(family)), Spec(**spec))


def test_more_devices_than_experts_are_idle_if_the_spec_says_so():
    graph, model, inputs, expected = transformers_model("mixtral")
    plan = parframe.partition(graph, Spec(parallel="EP8", strategies={"ep": {"idle": True}}))
    assert parframe.check(plan).ok
    assert_equal(parframe.simulate(plan, inputs, model, "float64").logits, expected, 1e-11)
    experts = [plan.weights(r)["model.layers.0.mlp.experts.down_proj"].elements for r in (5, 6, 7)]
    assert experts[0] > 0
    assert experts[1:] == [0, 0]


def changed(plan, target, **args):
    """The plan with other arguments in all operators of a target."""
    return attrs.evolve(
        plan,
        programs={
            name: attrs.evolve(
                program,
                operators=tuple(
                    attrs.evolve(op, args={**op.args, **args}) if op.target == target else op
                    for op in program.operators
                ),
            )
            for name, program in plan.programs.items()
        },
    )


FAULTS = {
    "the number of the first expert": {"first": 0},
    "the choices that are sent": {"travels": ("up",)},
    "the mesh axes of the group": {"axes": ("tp",)},
    "what experts do between their products": {"activation": '["rows"]'},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_dispatch_is_blamed(fault):
    plan = planned(transformers_model("mixtral")[0], "EP2TP2")
    assert parframe.check(plan).ok
    wrong = parframe.check(changed(plan, "parframe.expert_dispatch", **FAULTS[fault]))
    assert not wrong.ok


def test_experts_that_two_devices_hold_and_another_misses_are_blamed():
    plan = planned(transformers_model("mixtral")[0], "EP3")
    devices = list(plan.devices)
    devices[2] = attrs.evolve(devices[2], bindings={**devices[2].bindings, "experts_start": 2})
    findings = parframe.check(attrs.evolve(plan, devices=tuple(devices))).findings
    assert any("experts" in finding.message for finding in findings)


def test_a_bias_of_experts_that_share_columns_is_added_once():
    """Both tensor ranks would add it, if the second did not know that it is not the first."""
    graph, model, inputs, expected = transformers_model("gpt_oss")
    plan = planned(graph, "EP2TP3")
    assert_equal(parframe.simulate(plan, inputs, model, "float64").logits, expected, 1e-11)
    twice = changed(plan, "parframe.expert_dispatch", column=0)
    assert not parframe.check(twice).ok
    assert not parframe.verify(twice).ok


@settings(max_examples=12, deadline=None)
@given(
    experts=st.integers(2, 7),
    choices=st.integers(1, 3),
    ep=st.integers(1, 4),
    tp=st.integers(1, 3),
    rows=st.integers(1, 5),
    dispatch=st.sampled_from(DISPATCHES),
)
def test_any_number_of_experts_choices_and_devices(experts, choices, ep, tp, rows, dispatch):
    choices = min(choices, experts)
    config = models.tiny_config(
        "mixtral", num_local_experts=experts, num_experts_per_tok=choices, num_hidden_layers=1,
        intermediate_size=7,
    )  # fmt: skip
    graph = parframe.load(config)
    strategies = {"ep": {"dispatch": dispatch, "idle": True}}
    plan = parframe.partition(graph, Spec(parallel=f"EP{ep}TP{tp}", strategies=strategies))
    report = parframe.check(plan)
    assert report.ok, report.findings[:3]
    assert parframe.verify(plan, batch=rows, sequence=3, seed=rows).ok

"""Verification of partitioned models: every composite computes what the model computes."""

import ast

import pytest
import torch
from handwritten import changed
from models import tiny_config

import parframe
from parframe.graph import Ref
from parframe.simulation.first_difference import find_first_difference
from parframe.simulation.graph_inputs import convert_inputs
from parframe.simulation.simulate import RunInputs
from parframe.simulation.trial_inputs import choose_trial_sizes, make_trial_inputs
from parframe.weights import read_state_dict

pytestmark = pytest.mark.slow

COMPOSITES = ["TP2", "TP3", "TP8", "PP2", "DP2", "DP3", "TP2SP", "TP4DP2SP", "TP2PP2DP2"]


@pytest.fixture(scope="module")
def llama():
    return parframe.load(tiny_config("llama"))


@pytest.fixture(scope="module")
def parallel():
    """Return a model with parallel attention and feed-forward, and biases."""
    return parframe.load(tiny_config("gpt_neox"))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_partitioned_model_computes_what_the_model_computes(llama, composite):
    plan = parframe.partition(llama, composite)
    proof = parframe.verify(plan)
    assert proof.ok, proof.first_difference
    assert proof.outputs[0].parts >= 1
    assert parframe.verify(plan, dtype="float32").ok


@pytest.mark.parametrize("composite", ["TP3", "TP2SP", "TP2PP2DP2"])
def test_a_correct_plan_has_no_difference(parallel, composite):
    plan = parframe.partition(parallel, composite)
    assert all(program.layouts for program in plan.programs.values())
    (sizes,) = choose_trial_sizes(plan, 3, None)
    state = read_state_dict(plan.graph, None, torch.float64)
    drawn = make_trial_inputs(plan.graph, sizes, 0)
    inputs = convert_inputs(plan.graph, drawn, torch.float64, torch.device("cpu"))
    given = RunInputs(inputs, state, torch.float64, torch.device("cpu"))
    assert find_first_difference(plan, given, 1e-11) is None


def test_a_plan_that_was_saved_computes_the_same(llama, tmp_path):
    plan = parframe.partition(llama, "PP2TP3DP2SP")
    plan.save(tmp_path / "plan")
    again = parframe.load_plan(tmp_path / "plan")
    assert again == plan
    given = {"input_ids": torch.arange(21).reshape(3, 7)}
    one = parframe.simulate(plan, given, dtype="float64")
    assert torch.equal(one.logits, parframe.simulate(again, given, dtype="float64").logits)
    for role in (tmp_path / "plan" / "programs").iterdir():
        ast.parse(role.read_text())


def test_devices_store_every_element_of_every_weight(llama):
    plan = parframe.partition(llama, "TP3PP2")
    stored = dict.fromkeys(llama.parameters, 0)
    for rank in range(plan.mesh.size):
        for part in plan.weights(rank).values():
            stored[part.whole] += part.elements
    whole = {name: int(tensor.elements) for name, tensor in llama.parameters.items()}
    assert all(stored[name] >= whole[name] for name in whole)
    assert stored["model.layers.0.mlp.up_proj.weight"] == whole["model.layers.0.mlp.up_proj.weight"]


def test_a_fault_in_a_model_is_found(llama):
    plan = parframe.partition(llama, "TP2")
    (name,) = plan.programs
    reduces = [op for op in plan.programs[name].operators if op.target == "parframe.all_reduce"]
    wrong = changed(plan, name, reduces[1].name, args={"reduction": "max"})
    proof = parframe.verify(wrong)
    assert not proof.ok
    users = {op.name for op in plan.programs[name].operators if reduces[1].name in op.inputs}
    assert proof.first_difference.operator in {reduces[1].name, *users}
    assert proof.first_difference.ranks == (0, 1)


def test_a_missing_reduction_is_found(llama):
    plan = parframe.partition(llama, "TP2")
    (name,) = plan.programs
    reduce = next(op for op in plan.programs[name].operators if "reduction" in op.args)
    user = next(op for op in plan.programs[name].operators if reduce.outputs[0] in op.inputs)
    slot = user.slots[user.inputs.index(reduce.outputs[0])]
    wrong = changed(plan, name, user.name, args={slot: Ref(reduce.inputs[0])})
    assert not parframe.verify(wrong).ok

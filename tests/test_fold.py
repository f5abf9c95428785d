"""Folding finds equal segments and keeps the order and the meaning of operators."""

import attrs
import models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.fold import fold, indexed_scope
from parframe.graph import Input, Operator, Parameter, Ref, Tensor
from parframe.loading import load
from parframe.simulation.reference import run_graph
from parframe.sizes import symbol

ROWS = symbol("batch")


def chain(steps, outputs=None, parameters=(), width=4):
    """A program of one operator a step: ``(module, target, arguments)``, each feeding the next."""
    operators = []
    before = "x"
    for position, (module, target, args) in enumerate(steps):
        name = f"%{position}"
        operators.append(
            Operator(name, target, {"self": Ref(before), **args}, (name,), module=module)
        )
        before = name
    tensors = {op.name: Tensor(op.name, (ROWS, width), "float64") for op in operators}
    return {
        "operators": operators,
        "tensors": tensors,
        "inputs": {"x": Input("x", (ROWS, width), "float64", axes=("batch", ""))},
        "parameters": {name: Parameter(name, (width,), "float64") for name in parameters},
        "outputs": before if outputs is None else outputs,
    }


def relu(module):
    return (module, "aten.relu.default", {})


def scaled(module, weight):
    return (module, "aten.mul.Tensor", {"other": Ref(weight)})


@pytest.mark.parametrize(
    ("module", "scope"),
    [
        ("", ""),
        ("model.norm", ""),
        ("model.layers.3", "model.layers.3"),
        ("model.layers.3.mlp.experts.5.up", "model.layers.3"),
        ("layer1.0.conv", "layer1.0"),
        ("0.weight", "0"),
        ("h2.x", ""),
    ],
)
def test_the_outermost_index_is_the_scope(module, scope):
    assert indexed_scope(module) == scope


def test_equal_layers_are_one_block_and_their_weights_are_arguments():
    names = [f"layers.{i}.scale" for i in range(3)]
    steps = [scaled(f"layers.{i}", name) for i, name in enumerate(names)]
    graph = fold(**chain([relu(""), *steps, relu("norm")], parameters=names))
    assert [(call.name, call.block) for call in graph.calls] == [
        ("head", "head"),
        ("layers.0", "layers"),
        ("layers.1", "layers"),
        ("layers.2", "layers"),
        ("tail", "tail"),
    ]
    assert [call.parameters for call in graph.calls[1:4]] == [(name,) for name in names]
    assert graph.blocks["layers"].parameters == ("scale",)
    assert graph.blocks["layers"].operators[0].module == "layers.*"
    assert [op.module for _, op in graph.expand()][1:4] == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize("other", [1, 1.0, True])
def test_arguments_of_other_types_give_other_blocks(other):
    steps = [("layers.0", "aten.add.Tensor", {"other": 1}), relu("layers.1")]
    steps[1] = ("layers.1", "aten.add.Tensor", {"other": other})
    graph = fold(**chain(steps))
    assert len(graph.blocks) == (1 if type(other) is int else 2)


def test_other_shapes_give_other_blocks():
    program = chain([relu("layers.0"), relu("layers.1")])
    tensors = {**program["tensors"], "%1": Tensor("%1", (ROWS, 5), "float64")}
    graph = fold(**{**program, "tensors": tensors})
    assert [call.block for call in graph.calls] == ["layers", "layers:2"]


def test_a_layer_that_is_entered_again_is_a_call_of_its_own():
    graph = fold(**chain([relu("layers.0"), relu("layers.1"), relu("layers.0")]))
    assert [call.name for call in graph.calls] == ["layers.0", "layers.1", "layers.0@2"]
    assert [op.module for _, op in graph.expand()] == ["layers.0", "layers.1", "layers.0"]


def test_a_value_used_much_later_is_an_output_of_its_layer():
    program = chain([relu("layers.0"), relu("layers.1"), relu("layers.2")], outputs=("%0", "%2"))
    graph = fold(**program)
    assert graph.outputs == ("layers.0/relu", "layers.2/relu")


def test_an_input_may_be_an_output():
    assert fold(**chain([relu("")], outputs={"a": "x", "b": None})).outputs == {"a": "x", "b": None}


def test_a_program_of_no_operators_folds():
    graph = fold(**chain([]))
    assert graph.calls == ()
    assert graph.outputs == "x"


def test_an_undefined_value_is_refused():
    program = chain([relu("")])
    wrong = [attrs.evolve(program["operators"][0], args={"self": Ref("x"), "other": Ref("y")})]
    with pytest.raises((ParframeError, KeyError)):
        fold(**{**program, "operators": wrong})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "norm", "layers.0", "layers.1", "layers.2.mlp", "0"]),
            st.sampled_from(["aten.relu.default", "aten.neg.default", "aten.tanh.default"]),
        ),
        max_size=12,
    )
)
def test_folding_keeps_what_is_computed(steps):
    program = chain([(module, target, {}) for module, target in steps])
    graph = fold(**program)
    x = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(2, 4)
    expected = x
    for _, target in steps:
        expected = getattr(torch, target.split(".")[1])(expected)
    assert torch.equal(run_graph(graph, {"x": x}, {}), expected)
    assert [op.target for _, op in graph.expand()] == [target for _, target in steps]
    assert [op.module for _, op in graph.expand()] == [module for module, _ in steps]
    assert len({op.name for _, op in graph.expand()}) == len(steps)


def test_the_graph_of_operators_and_tensors_is_whole():
    graph = load(models.mlp(), {"x": torch.zeros(2, 12, dtype=torch.float64)})
    nodes = dict(graph.networkx.nodes(data=True))
    assert sum(node["kind"] == "operator" for node in nodes.values()) == len(list(graph.expand()))
    assert "input" in {node["kind"] for node in nodes.values()}

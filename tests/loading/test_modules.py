"""Modules of plain PyTorch: they compute the same, are not changed, or are refused."""

import itertools

import models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parframe.errors import ParframeError
from parframe.loading import load
from parframe.simulation.reference import run_graph
from parframe.sizes import symbol
from parframe.weights import read_state_dict

pytestmark = pytest.mark.slow


def leaves(value):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if leaf is not None]


def assert_same(graph, module, inputs):
    with torch.no_grad():
        expected = leaves(module(**inputs))
    actual = leaves(run_graph(graph, inputs, read_state_dict(graph, module)))
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", models.PLAIN)
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_a_plain_model_computes_the_same(name, batch):
    make, shapes = models.PLAIN[name]
    module = make()
    graph = load(module, {k: torch.zeros(s, dtype=torch.float64) for k, s in shapes.items()})
    inputs = {k: torch.randn(batch, *s[1:], dtype=torch.float64) for k, s in shapes.items()}
    assert_same(graph, module, inputs)


def test_equal_stages_are_one_block_and_unequal_ones_are_not():
    graph = load(models.resnet(), {"image": torch.zeros(2, 3, 16, 16, dtype=torch.float64)})
    assert [call.block for call in graph.calls] == [
        "head", "stages", "stages", "stages:2", "stages:3", "tail",
    ]  # fmt: skip


def test_named_axes_become_symbols():
    graph = load(
        nn.Linear(4, 2), {"input": torch.zeros(3, 5, 4)}, {"input": {0: "rows", 1: "time"}}
    )
    assert graph.inputs["input"].shape == (symbol("rows"), symbol("time"), 4)
    assert graph.inputs["input"].axes == ("rows", "time", "")


def test_without_dynamic_the_first_axis_is_the_batch():
    graph = load(nn.Linear(4, 2), {"input": torch.zeros(3, 4)})
    assert graph.inputs["input"].shape == (symbol("batch"), 4)


class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(3, 8) if x.shape[0] == 3 else x


def test_an_axis_that_cannot_vary_is_static_but_named():
    graph = load(Fixed(), {"x": torch.zeros(3, 2, 4)})
    assert graph.inputs["x"].shape == (3, 2, 4)
    assert graph.inputs["x"].axes == ("batch", "", "")


class Everything(nn.Module):
    """Views, writes, constants, buffers, dropout, no-ops, several outputs, sizes as numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(5.0, dtype=torch.float64), persistent=False)
        self.register_buffer("stored", torch.full((5,), 2.0, dtype=torch.float64))
        self.norm = nn.LayerNorm(5, dtype=torch.float64)
        self.drop = nn.Dropout()

    def forward(self, x, y=None):
        x = self.drop(self.norm(x)).contiguous().clone().detach()
        with torch.no_grad():
            z = torch.relu_(x + self.table) + self.stored
        z = z + torch.tensor([1.0, -2.0, 3.0, 0.5, -0.25], dtype=torch.float64)
        first, _, last = torch.split(z, [2, 1, 2], dim=-1)
        rows = torch.arange(x.shape[0] * 2, dtype=torch.float64).view(x.shape[0], -1)
        written = torch.zeros_like(z)
        written[:, 1:3] = first
        written[:, 0] += last.sum(-1)
        top, where = torch.topk(z, 2, dim=-1)
        return {"a": (rows + first, [written, None]), "b": top[..., -1:], "c": where + 0, "y": y}


def test_writes_constants_and_views_compute_the_same():
    module = Everything()
    inputs = {"x": torch.randn(3, 5, dtype=torch.float64), "y": torch.ones(3)}
    graph = load(module, inputs)
    assert_same(
        graph, module.eval(), {"x": torch.randn(6, 5, dtype=torch.float64), "y": torch.ones(6)}
    )
    targets = {operator.target for _, operator in graph.expand()}
    assert not any(target.split(".")[1].endswith("_") for target in targets)
    assert not targets & {"aten.clone.default", "aten.detach.default", "aten.dropout.default"}
    kinds = {name: (p.kind, p.data is not None) for name, p in graph.parameters.items()}
    assert kinds["table"] == ("buffer", True)
    assert kinds["stored"] == ("buffer", False)
    assert kinds["constant.0"] == ("constant", True)
    assert graph.outputs["y"] == "y"


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False, dtype=torch.float64)
        self.second = nn.Linear(4, 4, bias=False, dtype=torch.float64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def test_a_shared_weight_is_one_parameter():
    module = Shared()
    graph = load(module, {"x": torch.zeros(2, 4, dtype=torch.float64)})
    assert list(graph.parameters) == ["first.weight"]
    assert graph.parameters["first.weight"].aliases == ("second.weight",)
    assert_same(graph, module, {"x": torch.randn(3, 4, dtype=torch.float64)})
    weights = {"second.weight": module.first.weight}
    assert read_state_dict(graph, weights)["first.weight"] is not None


def test_a_module_is_left_as_it_was():
    module = models.resnet()
    module.train()
    module.norm.eval()
    before = {name: (id(p), p.clone()) for name, p in module.state_dict(keep_vars=True).items()}
    modes = [part.training for part in module.modules()]
    load(module, {"image": torch.zeros(2, 3, 16, 16, dtype=torch.float64)})
    assert [part.training for part in module.modules()] == modes
    for name, tensor in module.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0]
        assert torch.equal(tensor, before[name][1])


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def test_control_flow_on_tensors_is_refused_with_the_models_line():
    with pytest.raises(ParframeError) as caught:
        load(Branches(), {"x": torch.zeros(2, 2)})
    assert caught.value.kind == "load"
    assert caught.value.where.startswith("test_modules.py:")
    assert "if x.sum() > 0:" in caught.value.where
    assert "control flow" in caught.value.hint


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.steps += 1
        return x * self.steps


def test_a_model_that_writes_into_itself_is_refused():
    with pytest.raises(ParframeError, match="writes into this tensor"):
        load(Counts(), {"x": torch.zeros(2, 2)})


BAD_INPUTS = {
    "none": (None, None, "exported with example inputs"),
    "not a tensor": ({"input": 3}, None, "not a tensor"),
    "another name": ({"x": torch.zeros(2, 4)}, None, "forward, which takes input"),
    "no such dim": ({"input": torch.zeros(2, 4)}, {"input": {2: "batch"}}, "has a dim 2"),
    "no such input": ({"input": torch.zeros(2, 4)}, {"x": {0: "batch"}}, "has a dim 0"),
    "not a name": ({"input": torch.zeros(2, 4)}, {"input": {0: "a b"}}, "is not a name for dim 0"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_example_inputs_are_refused(case):
    inputs, dynamic, message = BAD_INPUTS[case]
    with pytest.raises(ParframeError, match=message) as caught:
        load(nn.Linear(4, 2), inputs, dynamic)
    assert caught.value.kind == "input"


def test_a_wrong_shape_at_run_time_is_refused():
    graph = load(nn.Linear(4, 2), {"input": torch.zeros(2, 4)})
    with pytest.raises(ParframeError, match=r"has the shape \[2, 5\]"):
        run_graph(graph, {"input": torch.zeros(2, 5)}, read_state_dict(graph))
    with pytest.raises(ParframeError, match="is missing"):
        run_graph(graph, {}, read_state_dict(graph))


@settings(max_examples=12, deadline=None)
@given(
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    batch=st.integers(0, 5),
    bias=st.booleans(),
)
def test_random_feed_forward_networks_compute_the_same(widths, batch, bias):
    sizes = [3, *widths]
    layers = [
        part
        for before, after in itertools.pairwise(sizes)
        for part in (nn.Linear(before, after, bias=bias, dtype=torch.float64), nn.GELU())
    ]
    module = nn.Sequential(*layers)
    graph = load(module, {"input": torch.zeros(2, 3, dtype=torch.float64)})
    assert_same(graph, module, {"input": torch.randn(batch, 3, dtype=torch.float64)})


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_a_model_that_draws_random_numbers_is_refused():
    with pytest.raises(ParframeError, match=r"rand_like.*draws random numbers"):
        load(Noisy(), {"x": torch.zeros(3, 4)})


class Attending(nn.Module):
    def forward(self, x):
        mixed = nn.functional.scaled_dot_product_attention(x, x, x)
        return nn.functional.dropout(mixed, 0.5, training=False)


def test_attention_and_dropout_that_drop_nothing_draw_nothing():
    graph = load(Attending(), {"x": torch.zeros(3, 2, 4, 8)})
    assert graph.output_names


class Last(nn.Module):
    def forward(self, x):
        count = x.shape[1]
        longer = nn.functional.pad(x, (2, 0))
        return longer[:, -count:] + torch.relu(x)[:, -count:]


def test_the_last_elements_of_an_axis_that_may_vary():
    graph = load(Last(), {"x": torch.zeros(3, 7)}, {"x": {0: "batch", 1: "time"}})
    assert_same(graph, Last(), {"x": torch.randn(2, 5)})


class Chunks(nn.Module):
    """Walks over its input two rows at a time."""

    def forward(self, x):
        return torch.cat([x[:, i : i + 2].cumsum(1) for i in range(0, x.shape[1], 2)], 1)


class Even(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] % 2 else x


class Few(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] < 50 else x


@pytest.mark.parametrize("kind", [Chunks, Even])
def test_code_that_depends_on_a_size_that_may_vary_is_refused(kind):
    inputs, dynamic = {"x": torch.zeros(3, 7)}, {"x": {0: "batch", 1: "time"}}
    with pytest.raises(ParframeError, match=r"takes another branch at sizes|does not support this"):
        load(kind(), inputs, dynamic)


def test_code_that_compares_a_size_with_a_number_is_loaded_for_the_sizes_on_one_side():
    inputs, dynamic = {"x": torch.zeros(3, 7)}, {"x": {0: "batch", 1: "time"}}
    assert load(Few(), inputs, dynamic).inputs["x"].most == (None, 49)


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(12.0))

    def forward(self, x):
        return x * self.table[: x.shape[1]]


def test_an_axis_may_be_as_long_as_a_table_of_the_model():
    graph = load(Table(), {"x": torch.zeros(3, 7)}, {"x": {0: "batch", 1: "time"}})
    assert_same(graph, Table(), {"x": torch.randn(2, 9)})


class Shaped(nn.Module):
    def forward(self, x, y):
        return y.expand_as(x) + x.view_as(x) + y.broadcast_to(x.shape)


def test_a_shape_taken_from_another_tensor_is_written_out():
    inputs = {"x": torch.zeros(3, 4), "y": torch.zeros(4)}
    graph = load(Shaped(), inputs, {"x": {0: "batch"}})
    assert {op.target for _, op in graph.expand()} == {"aten.expand.default", "aten.add.Tensor"}
    assert_same(graph, Shaped(), {"x": torch.randn(5, 4), "y": torch.randn(4)})

"""Models that accept inputs of some sizes: they load for those, and others are refused."""

import json

import pytest
import torch
from torch import nn

import parframe
from parframe.errors import ParframeError
from parframe.simulation.reference import run_graph
from parframe.sizes import parse_size, simplify_bounds
from parframe.weights import read_state_dict

pytestmark = pytest.mark.slow


class Biased(nn.Module):
    """Adds the end of a table to all pairs of positions."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 6)

    def forward(self, x):
        bias = torch.arange(-39, 1).double().view(1, 40) ** 2
        bias = bias[:, max(0, 40 - x.shape[1]) :]
        h = self.up(x)
        return h @ h.transpose(1, 2) + bias


class Branching(nn.Module):
    """Takes another branch at small and at large sizes; 24 is also the size of a weight."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(24))

    def forward(self, x):
        if x.shape[1] < 5:
            return x * 2
        return x + self.scale.sum() if x.shape[1] <= 24 else x - 1


def loaded(module):
    return parframe.load(
        module.double(),
        inputs={"x": torch.randn(3, 7, 4).double()},
        dynamic={"x": {0: "batch", 1: "sequence"}},
    )


@pytest.fixture(scope="module")
def graph():
    return loaded(Biased())


def test_sizes_are_simplified_within_the_limit(graph):
    assert [graph.tensors[name].shape for name in graph.output_names] == [
        (parse_size("batch"), parse_size("sequence"), parse_size("sequence"))
    ]


@pytest.mark.parametrize("length", [1, 2, 39, 40])
def test_a_model_with_a_limit_computes_the_same_up_to_it(length):
    module = Biased()
    graph = loaded(module)
    x = torch.randn(2, length, 4).double()
    (found,) = torch.utils._pytree.tree_leaves(
        run_graph(graph, {"x": x}, read_state_dict(graph, module))
    )
    assert torch.allclose(found, module(x), rtol=1e-12, atol=1e-12)


def test_sizes_beyond_the_limit_are_refused_by_graphs_and_plans_also_if_read_from_files(graph):
    again = parframe.graph_json.parse_graph(parframe.graph_json.dump_graph(graph))
    assert again == graph
    plan = parframe.partition(again, "DP2")
    assert parframe.check(plan).ok
    assert parframe.verify(plan).ok
    with pytest.raises(
        ParframeError, match="has 41 along sequence, and the graph is the model for 40 at most"
    ):
        parframe.simulate(plan, {"x": torch.randn(2, 41, 4).double()})


@pytest.mark.parametrize("most", [[None], [None, 0, None], [None, "40", None], [None, True, None]])
def test_limits_that_are_not_one_number_for_each_dim_are_refused(graph, most):
    content = json.loads(parframe.graph_json.dump_graph(graph))
    content["inputs"]["x"]["most"] = most
    with pytest.raises(ParframeError, match="largest sizes are not one number for each dim"):
        parframe.graph_json.parse_graph(json.dumps(content))


def test_a_branch_on_a_size_limits_the_graph_to_the_branch_of_the_example():
    module = Branching()
    graph = parframe.graph_json.parse_graph(parframe.graph_json.dump_graph(loaded(module)))
    remarks = [
        note.what for note in parframe.partition(graph, "DP2").notes if note.kind == "remark"
    ]
    assert remarks == [
        "the graph is valid for sequence of 5 or more",
        "the graph is valid for sequence up to 24",
    ]
    for length in (5, 7, 24):
        x = torch.randn(2, length, 4).double()
        (found,) = torch.utils._pytree.tree_leaves(
            run_graph(graph, {"x": x}, read_state_dict(graph, module))
        )
        assert torch.equal(found, module(x))
    for length, message in ((4, "takes another way below 5"), (25, "the model for 24 at most")):
        with pytest.raises(ParframeError, match=message):
            run_graph(graph, {"x": torch.randn(2, length, 4)}, read_state_dict(graph, module))


@pytest.mark.parametrize(
    ("size", "simple"),
    [
        ("64 - Max(0, 64 - s)", "s"),
        ("64 - Max(0, 65 - s)", "s - 1"),
        ("Max(0, 63 - s)", "Max(0, 63 - s)"),
        ("Min(s, 70) + Max(1, s)", "2*s"),
        ("Max(0, 64 - t)", "Max(0, 64 - t)"),
        ("Max(0, s*t - 1)", "Max(0, s*t - 1)"),
    ],
)
def test_limits_simplify_maxima(size, simple):
    assert simplify_bounds(parse_size(size), {"s": 64}) == parse_size(simple)

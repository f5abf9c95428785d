"""Partitions of small models."""

import re

import models
import pytest
import torch
from plan_assertions import assert_equal
from torch import nn

from parframe.checking import check
from parframe.errors import ParframeError
from parframe.loading import load
from parframe.partitioning import partition
from parframe.plan import communicates
from parframe.simulation import simulate
from parframe.spec import Spec

pytestmark = pytest.mark.slow


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).double()


def assert_partitions(model, inputs, by):
    """The partition passes the checks and computes what the module does; gives the plan."""
    plan = partition(load(model, inputs), by)
    report = check(plan)
    assert report.ok, report.findings[:3]
    assert_equal(simulate(plan, inputs, model), model(**inputs), 1e-11)
    return plan


class Repeated(nn.Module):
    """Equal layers that take the model's input and what others made, in either order."""

    def __init__(self, first):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12)) for _ in range(3)
        )
        self.first = first

    def forward(self, x):
        y = self.layers[0](x if self.first else x * 2)
        z = self.layers[1](y if self.first else x)
        return self.layers[2](x) + y * z


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "by",
    [
        "TP2",
        "DP2",
        "DP2TP3",
        "PP3DP2",
        Spec(parallel="TP2", splits={"hidden": ("tp",), "ffn": ()}),
        Spec(parallel="DP2TP2", splits={"hidden": ("dp",), "batch": ()}),
    ],
)
def test_layers_may_take_the_models_input_as_well_as_each_others_results(first, by):
    model = models.randomize(Repeated(first).double()).eval()
    assert_partitions(model, {"x": drawn(5, 12)}, by)


class Turned(nn.Module):
    """Equal layers over rows that are a batch of triples in one, triples of a batch in the next."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12)) for _ in range(2)
        )

    def forward(self, x):
        rows = x.shape[0]
        y = self.layers[0](x.flatten(0, 1)).view(rows, 3, 12)
        return self.layers[1](y.transpose(0, 1).flatten(0, 1)).view(3, rows, 12)


@pytest.mark.parametrize("by", ["DP2", "TP2", "PP2", "DP3TP2"])
def test_equal_layers_whose_rows_are_made_of_other_factors_are_placed_apart(by):
    model = models.randomize(Turned().double()).eval()
    x = drawn(5, 3, 12)
    plan = partition(load(model, {"x": x}, {"x": {0: "batch"}}), by)
    report = check(plan)
    assert report.ok, report.findings[:3]
    assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)


class Shared(nn.Module):
    """One weight used in both directions, and a bias used alone."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(24, 12))
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, x):
        inner = (x @ self.table.T + self.bias).relu()
        return inner @ self.table + self.bias.sum()


@pytest.mark.parametrize("by", ["TP2", "TP5", "DP2TP2", "PP2"])
def test_a_weight_used_in_both_directions_is_stored_once(by):
    model = models.randomize(Shared().double()).eval()
    plan = assert_partitions(model, {"x": drawn(5, 12)}, by)
    if by == "TP2":
        assert plan.weights(1)["table"].runs == (((12, 24),), ((0, 12),))


class Biased(nn.Module):
    """Convolutions with biases whose channels are split."""

    def __init__(self):
        super().__init__()
        self.into = nn.Conv2d(3, 8, 3)
        self.up = nn.Conv2d(8, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, x):
        x = self.into(x)
        return x + self.down(self.up(x).relu())


@pytest.mark.parametrize("by", ["TP2", "TP4", "TP7"])
def test_biases_are_added_once(by):
    model = models.randomize(Biased().double()).eval()
    plan = assert_partitions(model, {"x": drawn(3, 3, 8, 8)}, by)
    targets = [operator.target for operator in plan.program(0).operators]
    assert targets.count("parframe.all_reduce") == 1


class Reshard(nn.Module):
    """Split by position first and by channel later, on one mesh axis."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        y = self.into(x).relu()
        return self.out(y * y.softmax(1))


def test_a_value_split_in_another_way_on_the_same_axis_is_resharded():
    model = models.randomize(Reshard().double()).eval()
    x = drawn(3, 6, 8)
    graph = load(model, {"x": x}, {"x": {0: "batch", 1: "sequence"}})
    spec = Spec(parallel="TP2", splits={"sequence": ("tp",), "ffn": ("tp",)})
    plan = partition(graph, spec)
    assert check(plan).ok
    assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)


class Summed(nn.Module):
    """Three partial sums, a bias each, and a residual between them."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(12, 20)
        self.first, self.second, self.third = (nn.Linear(20, 12) for _ in range(3))

    def forward(self, x):
        inner = self.up(x).tanh()
        return (self.first(inner) + x) + (self.second(inner) + self.third(inner))


def test_partial_sums_are_added_up_before_they_are_reduced_once():
    model = models.randomize(Summed().double()).eval()
    plan = assert_partitions(model, {"x": drawn(5, 12)}, "TP2")
    targets = [operator.target for operator in plan.program(0).operators]
    assert targets.count("parframe.all_reduce") == 1


def test_norms_and_softmax_over_a_split_axis_communicate_statistics_alone():
    class Norms(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)
            self.norm = nn.LayerNorm(24)

        def forward(self, x):
            return self.down(self.norm(self.up(x)).softmax(-1))

    model = models.randomize(Norms().double()).eval()
    plan = assert_partitions(model, {"x": drawn(5, 8)}, "TP3")
    program = plan.program(0)
    said = [
        (operator.target.removeprefix("parframe."), program.tensors[operator.outputs[0]].shape[-1])
        for operator in program.operators
        if communicates(operator)
    ]
    assert said[:4] == [("all_reduce", 1)] * 4
    assert all(size <= 8 for _, size in said)


def test_an_operator_without_a_rule_is_named_with_hints():
    @torch.library.custom_op("parframetest::swish", mutates_args=())
    def swish(x: torch.Tensor) -> torch.Tensor:
        return x * x.sigmoid()

    @swish.register_fake
    def _(x):
        return torch.empty_like(x)

    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

        def forward(self, x):
            return self.down(torch.ops.parframetest.swish(self.up(x)))

    graph = load(Custom(), {"x": torch.zeros(5, 8)})
    with pytest.raises(ParframeError, match=r"parframetest\.swish.*has no rule.*on_missing_rule"):
        partition(graph, "TP2")
    plan = partition(graph, Spec(parallel="TP2", on_missing_rule="replicate"))
    assert check(plan).ok
    assert "no rule" in {note.kind for note in plan.notes}


def test_a_split_that_the_model_lacks_is_refused_with_what_it_has():
    graph = load(Shared(), {"x": torch.zeros(5, 12)})
    with pytest.raises(ParframeError, match="no dimension 'experts'"):
        partition(graph, Spec(parallel="TP2", splits={"experts": ("tp",)}))


@pytest.mark.parametrize(
    ("parallel", "splits", "message"),
    [
        (
            "TP2",
            {"ffn": ["tp"], "hidden": ["tp"]},
            "splits.hidden: model.layers.0.mlp.gate_proj.weight is ffn x hidden, and splits put "
            "axis tp on both ffn and hidden; split only one of ffn and hidden over tp",
        ),
        (
            "TP2DP2",
            {"ffn": ["dp", "tp"], "hidden": ["tp"]},
            "splits.hidden: model.layers.0.mlp.gate_proj.weight is ffn x hidden, and splits put "
            "axis tp on both ffn and hidden; split only one of ffn and hidden over tp",
        ),
        (
            "TP2DP2PP2",
            {"hidden": ["tp"], "vocab": ["tp"]},
            "model.embed_tokens.weight is vocab x hidden, and splits put axis tp on both vocab "
            "and hidden; split only one of vocab and hidden over tp, or one over an axis that is "
            "free here: dp",
        ),
        (
            "DP2",
            {"batch": ["dp"], "sequence": ["dp"]},
            "input_ids is batch x sequence, and splits put axis dp on both batch and sequence",
        ),
    ],
)
def test_splits_that_contradict_each_other_in_a_tensor_are_refused(parallel, splits, message):
    graph = load(models.tiny_config("llama"))
    with pytest.raises(ParframeError, match=re.escape(message)):
        partition(graph, Spec(parallel=parallel, splits=splits))


def test_a_split_that_the_user_gives_and_one_that_a_strategy_offers_do_not_contradict():
    plan = partition(
        load(models.tiny_config("llama")), Spec(parallel="TP2", splits={"hidden": ["tp"]})
    )
    assert check(plan).ok

"""Pipeline stages: where they are cut, what is sent, what is computed again."""

import models
import pytest
import torch
from plan_assertions import assert_equal, count_communication
from torch import nn

from parframe.checking import check
from parframe.errors import ParframeError
from parframe.loading import load
from parframe.partitioning import partition
from parframe.plan import communicates
from parframe.simulation import simulate
from parframe.spec import Spec

pytestmark = pytest.mark.slow


def llama(layers=4, **changes):
    return load(models.tiny_config("llama", num_hidden_layers=layers, **changes))


def layers_of(plan, rank):
    return sorted(
        {
            operator.module.split(".")[2]
            for operator in plan.program(rank).operators
            if operator.module.startswith("model.layers.") and not communicates(operator)
        }
    )


def start_stages_at(graph, composite, starts):
    return partition(graph, Spec(parallel=composite, strategies={"pp": {"stage_starts": starts}}))


def test_neighbouring_stages_send_the_residual_stream_alone():
    plan = partition(llama(), "PP4")
    assert [count_communication(plan, rank) for rank in range(4)] == [
        {"send": 1},
        {"recv": 1, "send": 1},
        {"recv": 1, "send": 1},
        {"recv": 1},
    ]


def test_positions_and_rotary_tables_are_computed_again_in_each_stage():
    plan = partition(llama(), "PP4")
    for rank in range(4):
        targets = [operator.target for operator in plan.program(rank).operators]
        assert "aten.cos.default" in targets
        assert "aten.arange.default" in targets


def test_tied_weights_are_stored_by_both_stages_that_use_them():
    plan = partition(llama(tie_word_embeddings=True), "PP2TP2")
    name = "model.embed_tokens.weight"
    for rank in range(4):
        tensor = plan.mesh.coordinates(rank)["tp"]
        assert plan.weights(rank)[name].runs[0] == ((64 * tensor, 64 * tensor + 64),)


@pytest.mark.parametrize(
    ("starts", "layers"),
    [([3], [["0", "1", "2"], ["3"]]), (["model.layers.1"], [["0"], ["1", "2", "3"]])],
)
def test_stages_start_where_the_user_says(starts, layers):
    plan = start_stages_at(llama(), "PP2", starts)
    assert [layers_of(plan, rank) for rank in range(2)] == layers
    assert check(plan).ok


@pytest.mark.parametrize(
    ("composite", "starts", "what"),
    [
        ("PP2", [9], "no such place"),
        ("PP2", ["model.nothing"], "no such place"),
        ("PP2", [1, 2], "2 stage starts make 3 stages"),
        ("PP8", [], "8 pipeline stages, but the model has 4 layers"),
    ],
)
def test_impossible_stage_starts_are_refused(composite, starts, what):
    with pytest.raises(ParframeError, match=what):
        start_stages_at(llama(), composite, starts)


class Skips(nn.Module):
    """The first value is needed by every layer, the second by the last alone."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 16)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(4)
        )

    def forward(self, x):
        first = self.into(x).tanh()
        second = y = self.layers[0](first).tanh()
        for layer in self.layers[1:]:
            y = layer(y * first).tanh()
        return y + second - first


@pytest.mark.parametrize("composite", ["PP2", "PP3", "PP4", "PP4TP2", "TP2PP4DP2"])
def test_values_that_skip_stages_reach_every_stage_that_needs_them(composite):
    model = models.randomize(Skips().double()).eval()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).double()
    plan = partition(load(model, {"x": x}), composite)
    assert check(plan).ok
    assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)


def test_what_all_later_stages_need_is_broadcast():
    plan = partition(load(Skips(), {"x": torch.zeros(5, 6)}), "PP4")
    assert all(count_communication(plan, rank)["broadcast"] == 1 for rank in range(4))


def test_stages_share_compute_and_memory_evenly():
    graph = llama(layers=8, hidden_size=256, intermediate_size=896, head_dim=32)
    plan = partition(graph, "PP4")
    sizes = [
        sum(graph.parameters[part.whole].elements for part in plan.program(rank).parameters)
        for rank in range(4)
    ]
    assert max(sizes) <= 1.2 * sum(sizes) / 4

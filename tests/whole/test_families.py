"""Partitions of unmodified models compute what transformers and PyTorch compute."""

from functools import cache

import models
import pytest
import torch
from plan_assertions import assert_equal, count_communication

from parframe.checking import check
from parframe.loading import load
from parframe.partitioning import partition
from parframe.simulation import simulate

pytestmark = pytest.mark.slow

COMPOSITES = ("TP2", "TP3", "PP2", "DP2", "TP2PP2")


@cache
def transformers_model(name):
    """Return a family's graph, model, inputs and the logits of transformers."""
    model = models.tiny_model(name)
    if name == "vit":
        generator = torch.Generator().manual_seed(1)
        inputs = {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator).double()}
    else:
        inputs = {"input_ids": models.tokens(3, 11)}
    return (
        load(models.tiny_config(name)),
        model,
        inputs,
        models.reference_outputs(model, inputs).logits,
    )


@pytest.mark.parametrize("name", models.FAMILIES)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_partition_computes_what_transformers_computes(name, composite):
    graph, model, inputs, expected = transformers_model(name)
    plan = partition(graph, composite)
    report = check(plan)
    assert report.ok, report.findings[:3]
    assert_equal(simulate(plan, inputs, model, "float64").logits, expected, 1e-11)


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "phi3", "gpt_neox", "gpt2", "starcoder2", "bert"]
)
def test_explicit_casts_are_computed_unless_a_dtype_is_given(name):
    """With float64 weights and no dtype, norms compute in float32, as in transformers."""
    graph, _, inputs, _ = transformers_model(name)
    model = models.tiny_model(name, attention="sdpa")
    with torch.no_grad():
        expected = model(**inputs).logits
    actual = simulate(partition(graph, "DP2TP2"), inputs, model.state_dict()).logits
    assert actual.dtype == torch.float64
    assert_equal(actual, expected, 1e-11)


@pytest.mark.parametrize("composite", [*COMPOSITES, "DP5", "PP4TP2"])
def test_a_partitioned_resnet_computes_what_pytorch_computes(composite):
    model = models.resnet()
    image = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()
    plan = partition(load(model, {"image": image}), composite)
    assert check(plan).ok
    assert_equal(simulate(plan, {"image": image}, model), model(image), 1e-11)


@pytest.mark.parametrize("composite", [*COMPOSITES, "DP5", "TP7"])
def test_a_partitioned_mlp_returns_what_the_module_returns(composite):
    model = models.mlp()
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(3)).double()
    plan = partition(load(model, {"x": x}), composite)
    assert check(plan).ok
    actual, expected = simulate(plan, {"x": x}, model), model(x)
    assert_equal(actual["scores"], expected["scores"], 1e-11)
    assert_equal(actual["hidden"][0], expected["hidden"][0], 1e-11)


@pytest.mark.parametrize(
    ("name", "layers"), [("llama", 2), ("gpt2", 2), ("qwen3", 2), ("bloom", 2)]
)
def test_a_layer_reduces_twice_under_tensor_parallelism(name, layers):
    """A layer has the analytic minimum: a reduction after attention and after the feed-forward."""
    plan = partition(transformers_model(name)[0], "TP2")
    assert count_communication(plan) == {"all_reduce": 2 * layers + 1, "all_gather": 1}


@pytest.mark.parametrize("name", ["gpt_neox", "cohere", "cohere2", "falcon"])
def test_parallel_attention_and_feed_forward_are_reduced_once(name):
    plan = partition(transformers_model(name)[0], "TP2")
    assert count_communication(plan) == {"all_reduce": 2 + 1, "all_gather": 1}


def test_sequence_parallelism_scatters_and_gathers_instead_of_reducing():
    plan = partition(transformers_model("llama")[0], "TP2SP")
    counts = count_communication(plan)
    assert counts["all_reduce"] == 0
    assert counts["reduce_scatter"] == 2 * 2 + 1
    assert counts["all_gather"] == 2 * 2 + 2


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "cohere", "gpt_neox", "phi3", "bloom"])
@pytest.mark.parametrize("composite", ["TP4SP", "SP3", "TP2SPDP2PP2", "TP12"])
def test_sequence_parallelism_and_degrees_beyond_the_heads_compute_the_same(name, composite):
    graph, model, inputs, expected = transformers_model(name)
    plan = partition(graph, composite)
    assert check(plan).ok
    assert_equal(simulate(plan, inputs, model, "float64").logits, expected, 1e-11)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_batch_smaller_than_the_replicas_leaves_some_idle(rows):
    graph, model, _, _ = transformers_model("llama")
    inputs = {"input_ids": models.tokens(rows, 5, seed=rows)}
    actual = simulate(partition(graph, "DP4TP2"), inputs, model, "float64").logits
    assert_equal(actual, models.reference_outputs(model, inputs).logits, 1e-11)


class Transposed(torch.nn.Module):
    """Views a transposed tensor after a copy to contiguous memory."""

    def __init__(self):
        super().__init__()
        self.into = torch.nn.Linear(6, 4)
        self.out = torch.nn.Linear(4, 6)

    def forward(self, x):
        x = self.into(x.transpose(0, 1).contiguous().view(-1, 6)).view(x.shape[1], -1, 4)
        return self.out(x.transpose(0, 1).contiguous().view(-1, 4))


@pytest.mark.parametrize("composite", ["PP2", "DP2", "TP2PP2"])
def test_a_view_of_a_contiguous_copy_needs_no_copy(composite):
    model = models.randomize(Transposed().double())
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    graph = load(model, {"x": x}, {"x": {0: "batch"}})
    plan = partition(graph, composite)
    assert check(plan).ok
    assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)


class Gated(torch.nn.Module):
    """A gated unit with a fused projection, a norm, and a write in place."""

    def __init__(self):
        super().__init__()
        self.convolve = torch.nn.Conv1d(3, 6, 3, padding=1)
        self.norm = torch.nn.InstanceNorm1d(6, affine=True)
        self.up = torch.nn.Linear(8, 24)
        self.down = torch.nn.Linear(12, 8)

    def forward(self, x):
        x = self.norm(self.convolve(x)).clone()
        x[:, 0] = 1.0
        return self.down(torch.nn.functional.glu(self.up(x)))


@pytest.mark.parametrize("composite", ["TP2", "TP3", "DP2", "DP5", "PP2", "TP2PP2DP2"])
def test_halves_of_one_dim_are_split_alike_and_instance_norms_are_split(composite):
    model = models.randomize(Gated().double())
    x = torch.randn(3, 3, 8, dtype=torch.float64)
    plan = partition(load(model, {"x": x}), composite)
    assert check(plan).ok
    assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)

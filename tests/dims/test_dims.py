"""Dimensions are found and named without a table per model."""

import models
import pytest
import torch
from torch import nn

from parframe.dims import name_dimensions
from parframe.dims.halves import halve_dimensions
from parframe.layout import Leaf, Segments, dim_size, dims_of
from parframe.loading import load

pytestmark = pytest.mark.slow


def dimensions_of(family, **changes):
    return name_dimensions(load(models.tiny_config(family, **changes)))


def sizes(dimensions, role):
    return [
        tuple(dimensions.dimensions[dim].size for dim in chain)
        for chain in dimensions.chains.get(role, ())
    ]


@pytest.mark.parametrize(
    ("family", "heads", "ffn", "vocab"),
    [
        ("llama", [(4, 2)], [(112,)], [(128,), (128,)]),
        ("qwen3", [(4, 2)], [(112,)], [(128,), (128,)]),
        ("gemma2", [(4, 2), (4, 2)], [(112,), (112,)], [(128,)]),
        ("phi3", [(4, 2)], [(112,)], [(128,), (128,)]),
        ("gpt_neox", [(8,)], [(112,)], [(128,), (128,)]),
        ("gpt2", [(8,)], [(256,)], [(128,)]),
        ("opt", [(8,)], [(112,)], [(128,)]),
        ("falcon", [(4, 2)], [(256,)], [(128,)]),
        ("bloom", [(8,)], [(256,)], [(128,)]),
        ("cohere2", [(4, 2)], [(112,)], [(128,)]),
        ("bert", [(8,)], [(112,)], [(128,)]),
        ("vit", [(8,)], [(112,)], [(10,)]),
    ],
)
def test_heads_feed_forward_and_vocabulary_are_found(family, heads, ffn, vocab):
    found = dimensions_of(family)
    assert sizes(found, "heads") == heads
    assert sizes(found, "ffn") == ffn
    assert sizes(found, "vocab") == vocab
    assert sizes(found, "hidden") == [(64,)]
    assert sizes(found, "batch")


@pytest.mark.parametrize(("heads", "chain"), [(1, [(8,)]), (2, [(2, 4)]), (8, [(8,)])])
def test_key_value_heads_of_any_number_are_factors_of_the_heads(heads, chain):
    assert sizes(dimensions_of("llama", num_key_value_heads=heads), "heads") == chain


def dims_of_parameter(dimensions, parameter):
    return dimensions.outer[parameter]


def test_a_fused_weight_has_a_segment_for_each_of_its_parts():
    found = dimensions_of("phi3")
    rows = dims_of_parameter(found, "model.layers.1.self_attn.qkv_proj.weight")[0]
    (segments,) = rows
    assert isinstance(segments, Segments)
    heads = [dims_of(part) & {"kv_heads", "group"} for part in segments.parts]
    assert heads == [{"kv_heads", "group"}, {"kv_heads"}, {"kv_heads"}]
    gate, up = dims_of_parameter(found, "model.layers.1.mlp.gate_up_proj.weight")[0][0].parts
    assert gate == up == (Leaf("ffn", 112),)


def test_interleaved_queries_keys_and_values_are_factors_under_the_heads():
    found = dimensions_of("gpt_neox")
    rows = dims_of_parameter(found, "gpt_neox.layers.0.attention.query_key_value.weight")[0]
    assert rows[0] == Leaf("heads", 8)
    assert dim_size(rows[1:]) == 3 * 8


def test_rows_and_columns_of_one_weight_are_different_dimensions():
    found = dimensions_of("llama")
    rows, columns = dims_of_parameter(found, "model.layers.0.mlp.up_proj.weight")
    assert (dims_of(rows), dims_of(columns)) == ({"ffn"}, {"hidden"})


def test_every_label_of_the_models_graphs_has_dimensions():
    for family in ("llama", "gemma2", "phi3", "gpt_neox", "gpt2", "opt", "cohere2", "bert"):
        for block in dimensions_of(family).bound.values():
            for bound in block.values():
                assert bound.signature is not None, bound.site.operator.target
                assert None not in bound.labels.values(), bound.site.operator


def test_names_are_the_same_every_time():
    graph = load(models.tiny_config("gemma2"))
    assert name_dimensions(graph).tensor_dims == name_dimensions(graph).tensor_dims


def test_channels_of_a_convolutional_network_are_named():
    found = name_dimensions(load(models.resnet(), {"image": torch.zeros(2, 3, 16, 16).double()}))
    assert sizes(found, "hidden") == [(8,), (16,)]
    assert sizes(found, "ffn") == [(8,), (16,), (16,)]
    assert sizes(found, "vocab") == [(10,)]


class Conflict(nn.Module):
    """The same values viewed as 3 x 4 and as 4 x 3, which have no common factors."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 12)
        self.out = nn.Linear(12, 6)

    def forward(self, x):
        y = self.into(x)
        left = y.view(-1, 3, 4).softmax(-1).flatten(1)
        right = y.view(-1, 4, 3).tanh().flatten(1)
        return self.out(left + right)


def test_conflicting_factors_leave_the_dim_whole():
    from plan_assertions import assert_equal

    from parframe.partitioning import partition
    from parframe.simulation import simulate

    model = models.randomize(Conflict().double()).eval()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).double()
    graph = load(model, {"x": x})
    for composite in ("TP2", "TP3", "DP2TP2"):
        plan = partition(graph, composite)
        assert_equal(simulate(plan, {"x": x}, model), model(x), 1e-11)


def test_a_fused_weight_indexed_by_constants_is_split_without_a_gather():
    from plan_assertions import count_communication

    from parframe.partitioning import partition

    plan = partition(load(models.tiny_config("falcon")), "TP8")
    assert count_communication(plan) == {"all_reduce": 3, "all_gather": 1}


def test_a_halved_dimension_is_two_segments_everywhere():
    dimensions = dimensions_of("llama")
    halved = halve_dimensions(dimensions, ["sequence"])
    (size,) = sizes(dimensions, "sequence")[0]
    front, back = sizes(halved, "sequence")[0]
    assert (front.subs({size: 7}), back.subs({size: 7})) == (4, 3)
    for block, values in halved.tensor_dims.items():
        for value, axes in values.items():
            before = dimensions.tensor_dims[block][value]
            assert [dim_size(axis) for axis in axes] == [dim_size(axis) for axis in before]
            assert "sequence" not in {dim for axis in axes for dim in dims_of(axis)}


def test_a_dimension_that_is_split_with_others_is_not_halved():
    dimensions = dimensions_of("llama")
    assert halve_dimensions(dimensions, ["heads", "kv_heads"]) == dimensions

"""Weights of one rank: exactly its slices, and no more bytes than these."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import parframe
from parframe.errors import ParframeError
from parframe.weights import (
    OpenedWeights,
    RandomWeights,
    file_reader,
    read_state_dict,
    read_weights,
)
from parframe.weights.compatibility import MatchedWeights
from parframe.weights.sources import WeightSource
from parframe.weights.tensor_tracing import trace_tensor

DENSE, EXPERTS = ("TP2", "TP3", "PP2"), ("TP2", "PP2", "EP2TP2")
COMPOSITES = {
    "llama": DENSE,
    "llama tied": DENSE,
    "fused qkv by heads": DENSE,
    "fused qkv and gate by blocks": DENSE,
    "transposed fused qkv": DENSE,
    "a tensor for each expert": EXPERTS,
    "experts, some shared": EXPERTS,
    "experts interleaved, with biases": EXPERTS,
}


@pytest.mark.parametrize("case", COMPOSITES)
def test_every_rank_has_its_slices_and_reads_no_more(saved, bytes_read, case):
    folder, graph, whole = saved(case)
    for composite in COMPOSITES[case]:
        plan = parframe.partition(graph, composite)
        for rank in range(plan.mesh.size):
            bytes_read[0] = 0
            found = read_weights(plan, rank, folder)
            wanted = plan.weights(rank)
            assert list(found) == list(wanted)
            for name, part in wanted.items():
                assert torch.equal(found[name], part.take(whole[part.whole])), (composite, name)
            stored = {
                (part.whole, part.runs): part.elements * 4
                for part in wanted.values()
                if graph.parameters[part.whole].data is None
            }
            assert sum(stored.values()) <= bytes_read[0] <= 1.02 * sum(stored.values())


def test_tied_weights_are_read_once_and_share_memory(saved, bytes_read):
    folder, graph, _ = saved("llama tied")
    plan = parframe.partition(graph, "PP2")
    names = [
        [n for n, part in plan.weights(rank).items() if "embed" in part.whole] for rank in (0, 1)
    ]
    assert all(names)
    plan = parframe.partition(graph, "TP2")
    found = read_weights(plan, 0, folder)
    tied = [found[n].data_ptr() for n, p in plan.weights(0).items() if "embed" in p.whole]
    assert len(set(tied)) == 1


def test_names_of_equal_slices_share_memory(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(6, 6, bias=False)
            self.two = torch.nn.Linear(6, 6, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.relu(self.one(x)))

    graph = parframe.load(Tied(), {"x": torch.zeros(2, 6)})
    save_file({"two.weight": torch.randn(6, 6)}, tmp_path / "model.safetensors")
    plan = parframe.partition(graph, "DP2")
    found = read_weights(plan, 1, tmp_path)
    assert all(torch.equal(t, load_file(tmp_path / "model.safetensors")["two.weight"])
               for t in found.values())  # fmt: skip
    assert len({tensor.data_ptr() for tensor in found.values()}) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_are_converted_in_parts_of_bounded_size(saved, monkeypatch, dtype):
    folder, graph, whole = saved("a tensor for each expert")
    monkeypatch.setattr(file_reader, "STAGING_BYTES", 3000)
    plan = parframe.partition(graph, "EP2TP2")
    found = read_weights(plan, 3, folder, dtype=dtype)
    for name, part in plan.weights(3).items():
        if graph.parameters[part.whole].data is None:
            assert torch.equal(found[name], part.take(whole[part.whole]).to(dtype)), name


def test_progress_rises_to_the_bytes_of_the_shard(saved, monkeypatch):
    folder, graph, _ = saved("llama")
    monkeypatch.setattr(file_reader, "STAGING_BYTES", 5000)
    reports = []
    read_weights(
        parframe.partition(graph, "TP2"), 0, folder, progress=lambda *report: reports.append(report)
    )
    done, totals = zip(*reports, strict=True)
    assert len(done) > 3
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}


def test_a_state_dict_is_sliced_without_a_copy(saved):
    _, graph, whole = saved("llama")
    plan = parframe.partition(graph, "TP2")
    weights = {n: t for n, t in whole.items() if graph.parameters[n].data is None}
    found = read_weights(plan, 1, weights)
    name = next(n for n, p in plan.weights(1).items() if p.whole.endswith("q_proj.weight"))
    own = weights[plan.weights(1)[name].whole]
    assert found[name].untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
    assert found[name].shape == (own.shape[0] // 2, own.shape[1])


def test_a_state_dict_with_a_tensor_for_each_expert_is_joined(saved):
    folder, graph, whole = saved("a tensor for each expert")
    weights = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    plan = parframe.partition(graph, "EP2TP2")
    for rank in range(4):
        found = read_weights(plan, rank, weights)
        for name, part in plan.weights(rank).items():
            assert torch.equal(found[name], part.take(whole[part.whole]))


def test_a_tensor_in_memory_that_is_stored_transposed_is_transposed(saved):
    graph = parframe.load(torch.nn.Linear(4, 4, bias=False), {"input": torch.zeros(2, 4)})
    stored = torch.randn(4, 4)
    view = trace_tensor("w", (4, 4), "float32").t().view_of
    opened = OpenedWeights(WeightSource("memory", {"w": stored}), MatchedWeights({"weight": view}))
    (found,) = read_weights(parframe.partition(graph, "DP2"), 0, opened).values()
    assert torch.equal(found, stored.t())


def test_a_base_models_names_are_those_of_the_model_with_a_head(saved, tmp_path):
    folder, graph, _ = saved("transposed fused qkv")
    content = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    bare = {name.removeprefix("transformer."): t for name, t in content.items()}
    save_file(bare, tmp_path / "model.safetensors")
    plan = parframe.partition(graph, "TP2")
    found, expected = read_weights(plan, 1, tmp_path), read_weights(plan, 1, folder)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("weights", ["random", RandomWeights(0), RandomWeights(5)])
def test_random_weights_are_slices_of_those_of_the_whole_model(saved, weights):
    _, graph, _ = saved("llama")
    whole = read_state_dict(graph, None, seed=getattr(weights, "seed", 0))
    plan = parframe.partition(graph, "TP3")
    for rank in range(3):
        found = read_weights(plan, rank, weights)
        for name, part in plan.weights(rank).items():
            assert torch.equal(found[name], part.take(whole[part.whole]))
            assert found[name].untyped_storage().nbytes() == found[name].nbytes


def test_weights_are_random_only_on_request(saved):
    _, graph, _ = saved("llama")
    with pytest.raises(ParframeError, match="'random' for random ones"):
        read_weights(parframe.partition(graph, "TP2"), 0, None)

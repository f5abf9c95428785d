"""Rank modules: results, structure, errors."""

import models
import pytest
import torch

import parframe
from parframe.runtime.cached_program import add_cache
from parframe.simulation.reference import run_graph
from parframe.weights import read_state_dict


def load_graph(name, **changes):
    return parframe.load(models.tiny_config(name, **changes), positions=True)


def logits(module, ids, positions, cache=None):
    """Return the logits of tokens at positions, with a cache if the module has one."""
    values = {"input_ids": ids, "position_ids": positions}
    if cache is not None:
        real = torch.ones_like(ids, dtype=torch.bool)
        values.update(module.cache_inputs(cache, cache.assign_slots(positions, real, ids.shape[1])))
    (part,) = module.outputs
    return module(values)[part.name]


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen3", "gpt_oss", "deepseek_v3"])
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_sequence(name):
    graph = load_graph(name)
    plan = parframe.partition(graph, "TP1")
    module = parframe.rank_module(plan, 0, "random", dtype="float64", cache=True)
    ids = models.tokens(2, 11)
    positions = torch.arange(11).expand(2, 11).contiguous()
    weights = read_state_dict(graph, None, torch.float64)
    whole = run_graph(graph, {"input_ids": ids}, weights, torch.float64).logits
    cache = module.new_cache(2, 16, torch.float64)
    with torch.no_grad():
        found = [logits(module, ids[:, :5], positions[:, :5], cache)]
        for at in range(5, 11):
            found.append(logits(module, ids[:, at : at + 1], positions[:, at : at + 1], cache))
    difference = (torch.cat(found, 1) - whole).abs().max() / whole.abs().max()
    assert difference < 1e-11


def test_equal_layers_are_one_submodule_and_weights_have_the_model_s_names():
    module = parframe.rank_module(
        parframe.partition(load_graph("llama", num_hidden_layers=6), "TP1"), 0, "random"
    )
    blocks = dict(module.body.get_submodule("blocks").named_children())
    assert len(blocks) == 3
    assert [block for _, block in module.calls].count("model.layers") == 6
    assert "body.model.layers.5.self_attn.q_proj.weight" in module.state_dict()


@pytest.mark.slow
def test_a_module_compiles_as_one_graph_with_equal_results():
    plan = parframe.partition(load_graph("llama"), "TP1")
    module = parframe.rank_module(plan, 0, "random", dtype="float64", cache=True)
    ids, positions = models.tokens(1, 1), torch.zeros(1, 1, dtype=torch.int64)
    compiled = torch.compile(module, fullgraph=True)
    with torch.no_grad():
        plain = logits(module, ids, positions, module.new_cache(1, 8, torch.float64))
        cache = module.new_cache(1, 8, torch.float64)
        slots = cache.assign_slots(positions, torch.ones_like(ids, dtype=torch.bool), 1)
        values = {"input_ids": ids, "position_ids": positions, **module.cache_inputs(cache, slots)}
        (part,) = module.outputs
        found = compiled(values)[part.name]
    assert torch.allclose(found, plain, rtol=1e-11, atol=1e-11)


def test_a_missing_process_group_is_named():
    plan = parframe.partition(load_graph("llama"), "TP2")
    with pytest.raises(parframe.ParframeError, match="no process group of the ranks 0, 1"):
        parframe.rank_module(plan, 0, "random")


def test_weights_are_random_only_on_request():
    plan = parframe.partition(load_graph("llama"), "TP1")
    with pytest.raises(parframe.ParframeError, match="random"):
        parframe.rank_module(plan, 0)


def test_an_unknown_rank_is_an_error():
    plan = parframe.partition(load_graph("llama"), "TP1")
    with pytest.raises(parframe.ParframeError, match="1 device"):
        parframe.rank_module(plan, 1, "random")


def test_a_full_cache_is_an_error():
    module = parframe.rank_module(
        parframe.partition(load_graph("llama"), "TP1"), 0, "random", cache=True
    )
    cache = module.new_cache(1, 4)
    positions = torch.arange(5).unsqueeze(0)
    with pytest.raises(parframe.ParframeError, match="5 tokens do not fit its 4 slots"):
        cache.assign_slots(positions, torch.ones(1, 5, dtype=torch.bool), 5)


@pytest.mark.parametrize(("name", "why"), [("falcon", "mask|positions"), ("bert", "not causal")])
def test_a_model_that_cannot_use_a_cache_is_an_error(name, why):
    plan = parframe.partition(load_graph(name), "TP1")
    with pytest.raises(parframe.ParframeError, match=why):
        parframe.rank_module(plan, 0, "random", cache=True)


def test_a_graph_without_positions_cannot_use_a_cache():
    plan = parframe.partition(parframe.load(models.tiny_config("llama")), "TP1")
    with pytest.raises(parframe.ParframeError, match="several positions at once"):
        parframe.rank_module(plan, 0, "random", cache=True)


def test_ranks_of_a_context_axis_cache_their_own_part_only():
    plan = parframe.partition(load_graph("llama"), "CP2")
    program = plan.program(1)
    caches = add_cache(program, {"sequence", "sequence_start", "sequence_here"}).caches
    assert len(caches) == len(program.states)
    assert all(str(spec.shape[spec.position_dim]) == "context" for spec in caches.values())


def test_positions_default_to_counting_from_zero():
    graph = load_graph("llama")
    plan = parframe.partition(graph, "TP2PP2")
    ids = models.tokens(2, 6)
    counted = parframe.simulate(plan, {"input_ids": ids}, dtype="float64").logits
    given = {"input_ids": ids, "position_ids": torch.arange(6).expand(2, 6)}
    assert torch.equal(counted, parframe.simulate(plan, given, dtype="float64").logits)
    assert parframe.verify(plan).ok

"""KV caches: a layer stores keys and values, or the latents that they are computed from."""

import models
import pytest

import parframe
from parframe.sizes import symbol

BATCH, SEQUENCE = symbol("batch"), symbol("sequence")


def cache_shapes(name):
    graph = parframe.load(models.tiny_config(name))
    (block,) = {block.name: block for block in graph.blocks.values() if block.states}.values()
    return {state.name: block.tensors[state.value].shape for state in block.states}


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_keys_and_values_are_stored_as_attention_takes_them(name):
    heads = 8 if name == "gpt2" else 4
    shape = (BATCH, heads, SEQUENCE, 8)
    assert cache_shapes(name) == {"attention.key": shape, "attention.value": shape}


@pytest.fixture(scope="module")
def latent():
    """Return a layer that computes keys and values from a latent of 16 and a rotary part of 8."""
    return parframe.load(models.tiny_config("deepseek_v3", first_k_dense_replace=0))


def test_the_latent_is_stored_where_keys_and_values_are_computed_from_one(latent):
    (block,) = (block for block in latent.blocks.values() if block.states)
    shapes = {state.name: block.tensors[state.value].shape for state in block.states}
    assert shapes == {
        "attention.latent": (BATCH, 1, SEQUENCE, 16),
        "attention.latent1": (BATCH, 1, SEQUENCE, 8),
    }


@pytest.mark.parametrize(
    ("composite", "parts"), [("TP2", 1), ("TP4", 1), ("CP2", 2), ("CP2TP2", 2), ("DP2", 1)]
)
def test_a_latent_cache_is_replicated_on_tensor_ranks_and_split_by_sequence(
    latent, composite, parts
):
    """Heads are split over tensor ranks; their one latent is not."""
    plan = parframe.partition(latent, composite)
    report = parframe.check(plan, batch=2 if "DP" in composite else 1, sequence=128)
    assert report.ok
    layers, bfloat16 = 3, 2
    needs = {memory.cache for memory in report.memory.values()}
    assert needs == {layers * (16 + 8) * 128 * bfloat16 // parts}
    assert parframe.verify(plan).ok


def test_a_cache_that_stores_other_values_is_a_finding(latent):
    import attrs

    from parframe.graph import State

    plan = parframe.partition(latent, "TP2")
    (program,) = plan.programs.values()
    first, second, *rest = program.states
    swapped = (State(first.name, second.value), State(second.name, first.value), *rest)
    wrong = attrs.evolve(plan, programs={program.name: attrs.evolve(program, states=swapped)})
    findings = parframe.check(wrong).findings
    assert [finding.kind for finding in findings] == ["state", "state"]
    assert "stores" in findings[0].message

"""Llama 3 8B: planned and checked at full size, and verified with small heads."""

from functools import cache

import models
import pytest
from plan_assertions import assert_equal

from parframe.checking import check
from parframe.loading import load
from parframe.partitioning import partition
from parframe.simulation import simulate

pytestmark = pytest.mark.slow

LLAMA_3_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
PARAMETERS = 8_030_261_248

SHRUNK = {
    "hidden_size": 128,
    "intermediate_size": 448,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 4,
}

COMPOSITES = ("PP8TP8", "PP4TP4DP4", "DP8TP8")


@cache
def full():
    return load(LLAMA_3_8B)


@cache
def shrunk():
    model = models.tiny_model("llama", **SHRUNK)
    inputs = {"input_ids": models.tokens(9, 7)}
    graph = load(models.tiny_config("llama", **SHRUNK))
    return graph, model, inputs, models.reference_outputs(model, inputs).logits


def test_the_configuration_has_the_published_number_of_parameters():
    weights = [p for p in full().parameters.values() if p.kind == "parameter"]
    assert sum(p.elements for p in weights) == PARAMETERS


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_full_size_is_planned_and_checked_with_its_memory(composite):
    plan = partition(full(), composite)
    report = check(plan, dtype="bfloat16", batch=8, sequence=4096)
    assert report.ok, report.findings[:3]
    assert len(report.memory) == plan.mesh.size == 64
    replicas = plan.mesh.degree("dp") if "dp" in plan.mesh.names else 1
    total = sum(memory.weights for memory in report.memory.values()) / replicas
    norms = 65 * 4096
    tensor = plan.mesh.degree("tp")
    assert total == pytest.approx(2 * (PARAMETERS + norms * (tensor - 1)), rel=1e-5)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_device_stores_little_more_than_its_ideal_share(composite):
    plan = partition(full(), composite)
    stages = plan.mesh.degree("pp") if "pp" in plan.mesh.names else 1
    tensor = plan.mesh.degree("tp")
    elements = {}
    for rank in range(plan.mesh.size):
        coordinates = plan.mesh.coordinates(rank)
        stored = sum(
            piece.local_shape[0] * (piece.local_shape[1] if len(piece.local_shape) > 1 else 1)
            for name, piece in plan.weights(rank).items()
            if full().parameters[name].kind == "parameter"
        )
        elements.setdefault(coordinates.get("pp", 0), []).append(stored)
    assert len(elements) == stages
    for stage, counts in elements.items():
        of_stage = sum(
            full().parameters[part.whole].elements
            for rank in range(plan.mesh.size)
            if plan.mesh.coordinates(rank).get("pp", 0) == stage
            for part in plan.program(rank).parameters
            if full().parameters[part.whole].kind == "parameter"
        ) / len(counts)
        assert max(counts) <= 1.02 * of_stage / tensor


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_small_model_with_the_same_heads_computes_the_same_on_64_devices(composite):
    graph, model, inputs, expected = shrunk()
    plan = partition(graph, composite)
    assert check(plan).ok
    assert_equal(simulate(plan, inputs, model, "float64").logits, expected, 1e-11)

"""Models with experts at full size: planned and checked, without weights."""

from functools import cache

import pytest

import parframe

pytestmark = pytest.mark.slow

MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 32000, "max_position_embeddings": 32768, "num_local_experts": 8,
    "num_experts_per_tok": 2, "sliding_window": None, "tie_word_embeddings": False,
}  # fmt: skip
"""Mixtral 8x7B, as its config.json has it."""

DEEPSEEK = {
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
    "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
    "norm_topk_prob": True, "max_position_embeddings": 163840, "tie_word_embeddings": False,
}  # fmt: skip
"""DeepSeek-V3 without its module that predicts a second token, as its config.json has it."""

BFLOAT16 = 2


@cache
def mixtral():
    return parframe.load(MIXTRAL)


@pytest.mark.parametrize(
    ("composite", "experts_over", "others_over", "stages"),
    [("EP8TP8", 64, 8, 1), ("EP8TP4DP2", 32, 4, 1), ("EP8PP2TP4", 32, 4, 2)],
)
def test_mixtral_on_64_devices(composite, experts_over, others_over, stages):
    """A device stores its shards of experts and other matrices, and whole routers and norms."""
    plan = parframe.partition(mixtral(), composite)
    assert len(plan.devices) == 64
    report = parframe.check(plan)
    assert report.ok, report.findings[:3]
    layers, hidden = 32, 4096
    experts = layers * 8 * 3 * 14336 * hidden // experts_over
    attention = layers * (2 * hidden + 2 * 1024) * hidden // others_over
    small = layers * (8 * hidden + 2 * hidden)
    tables = 32000 * hidden // others_over
    most = (experts + attention + small) // stages + tables * (2 // stages) + hidden
    found = max(need.weights for need in report.memory.values())
    assert abs(found / (most * BFLOAT16) - 1) < 0.001


def test_deepseek_v3_on_256_devices():
    graph = parframe.load(DEEPSEEK)
    total = sum(p.elements for p in graph.parameters.values() if p.kind == "parameter")
    assert round(total / 1e9) == 671
    plan = parframe.partition(graph, "EP32TP2PP4")
    assert len(plan.devices) == 256
    report = parframe.check(plan)
    assert report.ok, report.findings[:3]
    local_experts = {
        slices.local_shape[0]
        for name, slices in plan.weights(200).items()
        if name.endswith("experts.down_proj")
    }
    assert local_experts == {256 // 32}
    layers = [
        name for name, slices in plan.weights(0).items() if name.endswith("self_attn.o_proj.weight")
    ]
    assert report.memory[0].cache == len(layers) * (512 + 64) * 1024 * BFLOAT16

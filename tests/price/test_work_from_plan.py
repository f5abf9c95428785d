"""The work read from device graphs is what one counts from the configuration by hand."""

from __future__ import annotations

from typing import Any

import pytest

from parframe import models
from parframe.partitioning import partition
from parframe.price.work.work import Attention, Experts, Footprint, Product, Stage, Work
from parframe.price.work.work_from_plan import work_from_plan


def read(name: str, composite: str) -> tuple[dict[str, Any], Work]:
    model = models.find_model(name)
    return model.config, work_from_plan(partition(model.graph(), composite))


def multiplications(stage: Stage) -> float:
    """Of weights with a token of the step, on this device."""
    total = 0.0
    for kernel in stage.kernels:
        if isinstance(kernel, Product):
            total += kernel.count * kernel.share * kernel.inner * kernel.columns
        elif isinstance(kernel, Experts):
            part = kernel.share * kernel.top_k * kernel.local_experts / kernel.experts
            total += kernel.count * part * kernel.matrices * kernel.hidden * kernel.ffn
    return total


def llama_layer(config: dict[str, Any]) -> int:
    """Weights of a layer's products."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    width = hidden // config["num_attention_heads"]
    kept = 2 * config["num_key_value_heads"] * width
    return hidden * (2 * hidden + kept) + 3 * hidden * ffn


@pytest.mark.parametrize("name", ["Llama 3.1 8B", "Llama 2 13B", "Llama 3.1 70B"])
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_a_llama_is_divided_among_tensor_ranks(name: str, degree: int) -> None:
    config, work = read(name, f"TP{degree}")
    (stage,) = work.stages
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    table = config["vocab_size"] * hidden // degree
    products = layers * llama_layer(config) // degree
    norms = (2 * layers + 1) * hidden
    assert stage.footprint.weights == products
    assert stage.footprint.unquantized == 2 * table + norms
    assert multiplications(stage) == products + table
    kept = layers * 2 * config["num_key_value_heads"] * 128 // degree
    assert (stage.footprint.cache, stage.footprint.batch_share) == (((kept, None),), 1.0)
    reduced = sum(x.elements * x.count for x in stage.communication if x.kind == "all_reduce")
    assert reduced == ((2 * layers + 1) * hidden if degree > 1 else 0)


def test_stages_together_hold_the_model_and_send_hidden_states() -> None:
    config, whole = read("Llama 3.1 8B", "TP1")
    _, work = read("Llama 3.1 8B", "PP5")
    assert len(work.stages) == 5
    assert (
        sum(stage.footprint.weights for stage in work.stages) == whole.stages[0].footprint.weights
    )
    for number, stage in enumerate(work.stages[:-1]):
        (sent,) = (x for x in stage.communication if x.kind == "send")
        assert (sent.elements, sent.ranks) == (config["hidden_size"], (number, number + 1))


def test_rows_are_divided_among_replicas() -> None:
    _, work = read("Llama 3.1 8B", "DP4TP2")
    (stage,) = work.stages
    assert (work.replicas, stage.footprint.batch_share) == (4, 0.25)
    assert all(kernel.share == 0.25 for kernel in stage.kernels if isinstance(kernel, Product))


@pytest.mark.parametrize(("composite", "local", "ffn"), [("EP4TP2", 2, 7168), ("TP4", 8, 3584)])
def test_mixtral_has_its_experts_split(composite: str, local: int, ffn: int) -> None:
    config, work = read("Mixtral 8x7B", composite)
    (stage,) = work.stages
    (experts,) = (kernel for kernel in stage.kernels if isinstance(kernel, Experts))
    assert experts == Experts(local, 8, 2, 4096, ffn, 3, 1.0, 32)
    expected = 32 * (4096 * (2 * 4096 + 2048) // (8 if composite == "EP4TP2" else 4))
    visits = 32 * 2 * 3 * 4096 * 14336 / (8 if composite == "EP4TP2" else 4)
    routers = 32 * 4096 * 8 * (0.25 if composite == "EP4TP2" else 1)
    table = config["vocab_size"] * 4096 / (8 if composite == "EP4TP2" else 4)
    assert multiplications(stage) == expected + visits + routers + table


def test_deepseek_keeps_a_latent_of_each_position() -> None:
    config, work = read("DeepSeek-V3", "EP8TP2")
    (stage,) = work.stages
    latent = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    assert stage.footprint.cache == ((61 * latent, None),)
    (experts,) = (kernel for kernel in stage.kernels if isinstance(kernel, Experts))
    assert (experts.local_experts, experts.ffn, experts.count) == (32, 1024, 58)
    routed = 58 * 256 * 3 * 7168 * 2048
    hidden, heads = 7168, 128
    down = hidden * (1536 + latent)
    rest = 1536 * heads * 192 + 512 * heads * 256 + heads * 128 * hidden
    dense, shared = 3 * 3 * hidden * 18432, 58 * 3 * hidden * 2048
    assert stage.footprint.weights == routed // 16 + 61 * (down + rest // 2) + (dense + shared) // 2


def test_gpt_oss_keeps_windows_in_half_of_its_layers() -> None:
    _, work = read("GPT-OSS 20B", "TP2")
    (stage,) = work.stages
    assert {window: kept for kept, window in stage.footprint.cache} == {
        128: 12 * 2 * 4 * 64,
        None: 12 * 2 * 4 * 64,
    }


def test_tensor_ranks_beyond_key_value_heads_keep_whole_heads() -> None:
    _, work = read("Llama 3.1 8B", "TP16")
    (attention,) = (k for k in work.stages[0].kernels if isinstance(k, Attention))
    assert (attention.heads, attention.kv_heads, attention.cache_width) == (2, 1, 256)


def test_attention_written_out_is_read_as_attention() -> None:
    _, work = read("GPT-J 6B", "TP2")
    (attention,) = (k for k in work.stages[0].kernels if isinstance(k, Attention))
    assert (attention.heads, attention.key_width, attention.cache_width, attention.count) == (
        8, 256, 8 * 2 * 256, 28,
    )  # fmt: skip


def test_sequence_parallel_ranks_do_norms_for_their_tokens() -> None:
    _, work = read("Llama 3.1 8B", "TP4SP")
    kinds = {collective.kind for collective in work.stages[0].communication}
    assert {"reduce_scatter", "all_gather"} <= kinds
    assert isinstance(work.stages[0].footprint, Footprint)
    assert "all_reduce" not in kinds

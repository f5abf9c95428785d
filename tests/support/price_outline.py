"""Work of models, computed from their configurations by hand, for comparison with graphs."""

from __future__ import annotations

from functools import lru_cache

from parframe.models import find_model
from parframe.price.predict.query_resolution import Layout, ServableModel
from parframe.price.work.work import (
    Attention,
    Communication,
    Experts,
    Footprint,
    Pointwise,
    Product,
    Stage,
    Work,
)


def model(name: str) -> ServableModel:
    """Look a shipped model up, with its work by hand."""
    found = find_model(name)
    return ServableModel(found.name, found.weights, lambda layout: outline(found.name, layout))


@lru_cache(maxsize=512)
def outline(name: str, layout: Layout) -> Work:
    """Return the work of a shipped model, Megatron's way of splitting it."""
    config = find_model(name).config
    layers = _get(config, "num_hidden_layers", "n_layer")
    dense = config.get("first_k_dense_replace", 0)
    stages = []
    for stage in range(layout.pipeline):
        low, high = layers * stage // layout.pipeline, layers * (stage + 1) // layout.pipeline
        stages.append(
            _stage(config, layout, low, high, layers, min(max(dense - low, 0), high - low))
        )
    devices = layout.tensor * layout.pipeline * layout.data
    return Work(tuple(stages), devices, layout.data, layers)


def _stage(config, layout, low, high, layers, dense):
    hidden, vocab = _get(config, "hidden_size", "n_embd"), config["vocab_size"]
    count, tensor, share = high - low, layout.tensor, 1 / layout.data
    group = tuple(range(tensor))
    kernels, kept, weights = _attention(config, tensor, share, count)
    tables = 2 * hidden * count
    experts = (
        config.get("num_local_experts")
        or config.get("num_experts")
        or config.get("n_routed_experts")
    )
    width = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    sparse = count - dense if experts else 0
    matrices = 3 if config.get("hidden_act", config.get("hidden_activation")) else 2
    if count - sparse:
        part = width // tensor
        kernels += [
            Product(hidden, part * (matrices - 1), share, count=count - sparse),
            Product(part, hidden, share, count=count - sparse),
        ]
        weights += (count - sparse) * matrices * hidden * part
    communication = []
    if sparse:
        spread = layout.expert if layout.expert > 1 else 1
        inner = max(tensor * layout.data // spread, 1) if spread > 1 else tensor
        narrow = config.get("moe_intermediate_size") or width
        local_experts = experts // spread
        kernels += [
            Product(hidden, experts, share, unquantized=True, count=sparse),
            Experts(
                local_experts, experts, config["num_experts_per_tok"], hidden,
                max(narrow // inner, 1), share=1.0 if spread > 1 else share, count=sparse,
            ),
        ]  # fmt: skip
        weights += sparse * local_experts * 3 * hidden * max(narrow // inner, 1)
        tables += sparse * hidden * experts
        if config.get("n_shared_experts"):
            part = narrow * config["n_shared_experts"] // tensor
            kernels += [
                Product(hidden, part * 2, share, count=sparse),
                Product(part, hidden, share, count=sparse),
            ]
            weights += sparse * 3 * hidden * part
        if layout.data > 1 and spread > 1:
            all_ranks = tuple(range(tensor * layout.data))
            communication += [
                Communication("all_gather", hidden, all_ranks, count=sparse),
                Communication("reduce_scatter", hidden, all_ranks, count=sparse),
            ]
    parallel = config.get("parallel_attn") or config.get("model_type") == "gptj"
    if tensor > 1:
        communication.append(
            Communication("all_reduce", hidden, group, share, count=(1 if parallel else 2) * count)
        )
    kernels.append(Pointwise(8.0 * hidden + 3 * width / tensor, share, count=count))
    if low == 0:
        tables += vocab * hidden // tensor
    if high == layers:
        kernels.append(Product(hidden, vocab // tensor, share, "sequence", True))
        tables += 0 if config.get("tie_word_embeddings") and low == 0 else vocab * hidden // tensor
        if tensor > 1:
            communication.append(Communication("all_gather", vocab, group, share, "sequence"))
    else:
        communication.append(Communication("send", hidden, (0, tensor), share))
    alive = 4.0 * hidden + 3 * width / tensor
    footprint = Footprint(weights, tables, tuple(kept), share, activations=alive)
    return Stage(tuple(kernels), tuple(communication), footprint)


def _attention(config, tensor, share, count):
    hidden = _get(config, "hidden_size", "n_embd")
    heads = _get(config, "num_attention_heads", "n_head")
    if config.get("kv_lora_rank"):
        return _latent(config, tensor, share, count, hidden, heads)
    groups = config.get("num_key_value_heads") or config.get("num_kv_heads") or heads
    width = config.get("head_dim") or hidden // heads
    own, own_groups = heads // tensor, max(groups // tensor, 1)
    inner = own * width + 2 * own_groups * width
    kernels = [
        Product(hidden, inner, share, count=count),
        Product(own * width, hidden, share, count=count),
    ]
    weights = count * (hidden * inner + own * width * hidden)
    kinds = config.get("layer_types")
    window = config.get("sliding_window")
    local = kinds[:count].count("sliding_attention") if kinds else (count if window else 0)
    if config.get("model_type") == "gemma2":
        local = count // 2
    kept = []
    for number, reach in ((local, window), (count - local, None)):
        if number:
            elements = 2 * own_groups * width
            kernels.append(
                Attention(own, own_groups, width, width, elements, reach, share, count=number)
            )
            kept.append((number * elements, reach))
    return kernels, kept, weights


def _latent(config, tensor, share, count, hidden, heads):
    rank, rotary = config["kv_lora_rank"], config["qk_rope_head_dim"]
    key, value, low = (
        config["qk_nope_head_dim"] + rotary,
        config["v_head_dim"],
        config["q_lora_rank"],
    )
    own = heads // tensor
    shapes = [
        (hidden, low), (low, own * key), (hidden, rank + rotary),
        (rank, own * (config["qk_nope_head_dim"] + value)), (own * value, hidden),
    ]  # fmt: skip
    kernels = [Product(inner, columns, share, count=count) for inner, columns in shapes]
    kernels.append(
        Attention(own, own, rank + rotary, rank, rank + rotary, None, share, count=count)
    )
    weights = count * sum(inner * columns for inner, columns in shapes)
    return kernels, [(count * (rank + rotary), None)], weights


def _get(config, *names):
    return next(config[name] for name in names if config.get(name) is not None)

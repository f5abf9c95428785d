"""Measure the planning of full-size mixtures of experts, and the bytes of their dispatch."""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

import parframe
from benchmarks.planning import SMALL
from parframe import Plan, Spec

MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 32000, "max_position_embeddings": 32768, "num_local_experts": 8,
    "num_experts_per_tok": 2, "tie_word_embeddings": False,
}  # fmt: skip
DEEPSEEK = {
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 8, "topk_group": 4,
    "num_experts_per_tok": 8, "first_k_dense_replace": 3, "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
}  # fmt: skip
BATCH, SEQUENCE, CHOICES = 8, 16, 2


def planned(graph: parframe.OperatorGraph, composite: str) -> str:
    """Describe the seconds to partition and to check, and the memory of devices in bfloat16."""
    begun = time.perf_counter()
    plan = parframe.partition(graph, composite)
    middle = time.perf_counter()
    report = parframe.check(plan)
    ended = time.perf_counter()
    if not report.ok:
        raise SystemExit(f"{composite} does not pass the checks: {report.findings[0]}")
    needs = [need.total / 2**30 for need in report.memory.values()]
    return (
        f"{len(plan.devices)} devices, {middle - begun:.1f} + {ended - middle:.1f} s, "
        f"{min(needs):.2f} to {max(needs):.2f} GiB per device"
    )


def sent(plan: Plan) -> int:
    """Return the float32 bytes that the busiest device sends and receives in all dispatches."""
    proof = parframe.verify(plan, batch=BATCH, sequence=SEQUENCE)
    return max(row.bytes for row in proof.communication if row.kind == "expert_dispatch")


def main() -> None:
    table = Table("metric", "result", "target", title="Mixtures of experts")
    graph = parframe.load(MIXTRAL)
    for composite in ("EP8TP8", "EP8TP4DP2", "EP8PP2TP4"):
        table.add_row(f"Mixtral 8x7B, {composite}", planned(graph, composite), "partition + check")
    graph = parframe.load(DEEPSEEK)
    table.add_row("DeepSeek-V3, EP32TP2PP4", planned(graph, "EP32TP2PP4"), "<= 20 s")
    config = {
        "model_type": "mixtral", **SMALL, "num_hidden_layers": 2, "num_local_experts": 8,
        "num_experts_per_tok": CHOICES,
    }  # fmt: skip
    plan = parframe.partition(parframe.load(config), Spec(parallel="EP4"))
    most = 2 * 2 * BATCH * SEQUENCE // 4 * CHOICES * SMALL["hidden_size"] * 4
    table.add_row(
        "dispatch and combine bytes per device, EP4, relative to tokens x top-k x hidden",
        f"{sent(plan)} of {most}: {sent(plan) / most:.2f}",
        "<= 1",
    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

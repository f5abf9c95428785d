"""Reads tables of measured times of single kernels as rows that can be predicted and fitted."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import attrs

from parframe.hardware import shipped
from parframe.price.cost.attention_times import attention_time
from parframe.price.cost.chip import Chip, chip
from parframe.price.cost.dtypes import BYTES, SIXTEEN
from parframe.price.cost.efficiency import Efficiency, Operator
from parframe.price.cost.expert_times import Routing, experts_time
from parframe.price.cost.kernel_times import pointwise_time, product_time
from parframe.price.work.work import Attention, Experts, Step

TABLES = ("aic_gemm.csv", "vidur_compute_ops.csv", "aic_attention.csv", "aic_moe.csv")
"""The files of measured times that are read from a folder."""

RESIDENT = 0.25
"""Rows are left out of the fit whose weights are smaller than this part of the last cache: a
benchmark repeats a kernel and finds them there, a model never does."""

NEGLIGIBLE = 0.025
"""Caches of keys and values that are smaller than this part of the last cache show the overhead of
a decode step, wherever they are read from."""


@attrs.frozen(eq=False)
class Row:
    """A measured kernel: ``time`` gives its seconds from an efficiency."""

    operator: Operator
    kind: str
    on: Chip
    dtype: str
    seconds: float
    time: Callable[[Efficiency], float]
    implementation: str
    fits: bool = True


def read_rows(folder: Path) -> list[Row]:
    """Read the tables of a folder."""
    readers = (_gemm, _layer_operators, _attention, _experts)
    rows: list[Row] = []
    for name, reader in zip(TABLES, readers, strict=True):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                rows.extend(reader(line, _named(line["gpu"])))
    return rows


def provenance(folder: Path) -> tuple[str, ...]:
    """Return each table with the repository, commit and license of its rows."""
    sources = []
    for name in TABLES:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            line = next(csv.DictReader(file))
        repository, *_, commit = line["source"].split()
        sources.append(f"{name}: {repository} {commit}, {line['licence']}")
    return tuple(sources)


@cache
def _named(gpu: str) -> Chip:
    return chip(shipped().device(gpu))


def _gemm(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    dtype = {"bfloat16": "bf16"}.get(line["dtype"], line["dtype"])
    sizes = (int(line["m"]), int(line["k"]), int(line["n"]))
    yield _product_row(on, dtype, sizes, float(line["latency_us"]) * 1e-6, line["framework"])


def _product_row(
    on: Chip, dtype: str, sizes: tuple[int, int, int], seconds: float, implementation: str
) -> Row:
    weight = BYTES[dtype]
    return Row(
        operator="product",
        kind="product",
        on=on,
        dtype=dtype,
        seconds=seconds,
        time=lambda found: product_time.__wrapped__(on, found, *sizes, weight, dtype),
        implementation=implementation,
        fits=sizes[1] * sizes[2] * weight > RESIDENT * on.cache,
    )


def _layer_operators(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    """Read an operator of a layer, timed on one GPU that holds its shard under ``tp``."""
    degree, hidden = int(line["tp"]), int(line["n_embd"])
    heads, kv_heads = int(line["n_head"]), int(line["n_kv_head"])
    width, ffn = hidden // heads, int(line["n_expanded_embd"]) // degree
    tokens, seconds = int(line["num_tokens"]), float(line["median_ms"]) * 1e-3
    queries = heads // degree * width
    products = {
        "attn_pre_proj": (hidden, queries + 2 * max(1, kv_heads // degree) * width),
        "attn_post_proj": (queries, hidden),
        "mlp_up_proj": (hidden, 2 * ffn),
        "mlp_down_proj": (ffn, hidden),
    }
    moved = {"add": 3 * hidden, "input_layernorm": 2 * hidden, "mlp_act": 3 * ffn}
    kind = line["op"]
    if kind in products:
        yield _product_row(on, "bf16", (tokens, *products[kind]), seconds, "vidur")
    elif kind in moved and seconds > 0:
        size = moved[kind] * tokens * SIXTEEN
        yield Row(
            operator="pointwise",
            kind=kind,
            on=on,
            dtype="bf16",
            seconds=seconds,
            time=lambda found: pointwise_time(size, on, found),
            implementation="vidur",
        )


def _attention(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    heads, kv_heads = int(line["heads"]), int(line["kv_heads"])
    width = int(line["head_dim"])
    kernel = Attention(heads, kv_heads, width, width, cache_width=2 * kv_heads * width)
    new, keys = int(line["isl"]), int(line["kv_len"])
    step = Step(int(line["batch"]), new, keys - new)
    stored = step.sequences * keys * kernel.cache_width * SIXTEEN
    prompt = line["op"] == "context_attention"
    # a benchmark reads a small cache from the chip's last cache again and again
    resident = stored < on.cache and not prompt
    yield Row(
        operator="attention",
        kind="prompt" if prompt else "decode, resident" if resident else "decode",
        on=on,
        dtype="bf16",
        seconds=float(line["latency_us"]) * 1e-6,
        time=lambda found: attention_time(kernel, step, on, found, SIXTEEN),
        implementation=line["kernel"],
        fits=not resident or stored < NEGLIGIBLE * on.cache,
    )


def _experts(line: Mapping[str, str], on: Chip) -> Iterable[Row]:
    dtype = {"bfloat16": "bf16"}.get(line["dtype"], line["dtype"])
    experts, chosen = int(line["experts"]), int(line["topk"])
    kernel = Experts(
        local_experts=experts // int(line["moe_ep"]),
        experts=experts,
        top_k=chosen,
        hidden=int(line["hidden"]),
        ffn=int(line["inter"]) // int(line["moe_tp"]),
    )
    law = line["distribution"]
    routing = (
        Routing(exact=True) if law == "balanced" else Routing(float(law.split("_")[-1]), exact=True)
    )
    tokens, weight = int(line["tokens"]), BYTES[dtype]
    yield Row(
        operator="experts",
        kind="experts",
        on=on,
        dtype=dtype,
        seconds=float(line["latency_us"]) * 1e-6,
        time=lambda found: experts_time.__wrapped__(
            kernel, tokens, on, found, weight, dtype, routing
        ),
        implementation=f"{line['framework']} {line['kernel']}",
    )

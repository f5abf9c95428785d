"""Measure the reading of a rank's weights: bytes read, seconds, and additional memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

import parframe
from parframe.weights import read_weights, write_shards
from parframe.weights.rank_weights import open_weights

DENSE = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8,
    "vocab_size": 16000, "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
EXPERTS = {
    "model_type": "mixtral", "hidden_size": 1024, "intermediate_size": 2048,
    "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8,
    "vocab_size": 16000, "num_local_experts": 8, "num_experts_per_tok": 2, "dtype": "bfloat16",
}  # fmt: skip
CASES = (
    (DENSE, "TP2", None), (DENSE, "PP2", None), (DENSE, "TP8", None), (DENSE, "TP2", "float32"),
    (EXPERTS, "EP2TP2", None),
)  # fmt: skip


def write_model(config: dict[str, Any], folder: Path) -> int:
    """Write a model folder with random weights in several files, and return its bytes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200MB")
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def measure_rank(plan: Path, weights: Path, rank: int, dtype: str | None) -> dict[str, float]:
    """Measure the reading of one rank's weights in this process."""
    found = parframe.load_plan(plan)
    begun = time.perf_counter()
    if (weights / "shards.json").exists():
        opened: Any = weights
    else:
        opened = open_weights(found.graph, weights)
    torch.empty(1).to(torch.float32)
    middle = time.perf_counter()
    read_before, peak_before = _io("rchar"), _status("VmRSS")
    counted, real = [0], os.preadv

    def counting(*arguments: Any) -> int:
        counted[0] += (count := real(*arguments))
        return count

    os.preadv = counting
    weights = read_weights(found, rank, opened, dtype=getattr(torch, dtype) if dtype else None)
    read_after, ended = _io("rchar"), time.perf_counter()
    shard = sum(part.elements for part in found.weights(rank).values())
    kept = sum(tensor.nbytes for tensor in weights.values())
    return {
        "open": middle - begun,
        "seconds": ended - middle,
        "shard": shard * 2,
        "counted": counted[0],
        "read": read_after - read_before,
        "kept": kept,
        "extra_memory": _status("VmHWM") - peak_before - kept,
    }


def _io(key: str) -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure_in_process(plan: Path, weights: Path, rank: int, dtype: str | None) -> dict[str, float]:
    """Run `measure_rank` in a process of its own."""
    arguments = [str(plan), str(weights), str(rank), dtype or ""]
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.weight_reading", *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def row(table: Table, name: str, one: dict[str, float]) -> None:
    table.add_row(
        name,
        f"{one['shard'] / 2**20:.0f} MiB",
        f"{one['read'] / one['shard']:.4f}",
        f"{one['counted'] / one['shard']:.4f}",
        f"{one['open']:.2f} s",
        f"{one['seconds']:.2f} s",
        f"{one['extra_memory'] / 2**20:.0f} MiB",
    )


def columns() -> None:
    """Measure the column slices that are hardest to read, without a model."""
    from parframe.plan import Slices
    from parframe.weights.file_reader import ReadJob, open_reader
    from parframe.weights.safetensors_header import read_header
    from parframe.weights.strided_views import slice_pieces, whole_view

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.safetensors"
        save_file({"w": torch.randn(4096, 14336).bfloat16()}, file)
        stored = read_header(file).tensors["w"]
        for width in (1792, 64, 8):
            part = Slices("w", stored.shape, (((0, 4096),), ((1792, 1792 + width),)))
            target = torch.empty(part.local_shape, dtype=torch.bfloat16)
            begun = time.perf_counter()
            with open_reader(target.nbytes, None) as reading:
                for piece_slice in slice_pieces(
                    whole_view("w", stored.shape, "bfloat16"), part.runs
                ):
                    reading.run(ReadJob(stored, piece_slice, target))
            ended = time.perf_counter() - begun
            print(
                f"{width} columns of [4096, 14336] in bfloat16: {ended * 1e3:.1f} ms, "
                f"{reading.read / target.nbytes:.4f} of the slice read"
            )


def main() -> None:
    table = Table(
        "rank 0 of", "shard", "rchar / shard", "preadv / shard", "open", "read", "extra memory",
        title="Weights (target: read / shard <= 1.02)",
    )  # fmt: skip
    models: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (config, composite, dtype) in enumerate(CASES):
            kind = str(config["model_type"])
            if kind not in models:
                models[kind] = Path(folder) / kind
                print(f"{kind}: {write_model(config, models[kind]) / 2**20:.0f} MiB")
            plan = Path(folder) / f"plan{number}"
            parframe.partition(parframe.load(models[kind]), composite).save(plan)
            one = measure_in_process(plan, models[kind], 0, dtype)
            row(table, f"{kind} {composite} {dtype or ''}", one)
        shards = Path(folder) / "shards"
        begun = time.perf_counter()
        write_shards(parframe.load_plan(Path(folder) / "plan0"), models["llama"], shards)
        print(f"shards of llama TP2 written in {time.perf_counter() - begun:.2f} s")
        row(table, "llama TP2, its own file", measure_in_process(shards, shards, 0, None))
    columns()
    Console(width=120).print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        where, what, rank, dtype = sys.argv[1:]
        print(json.dumps(measure_rank(Path(where), Path(what), int(rank), dtype or None)))
    else:
        main()

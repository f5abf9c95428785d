"""Worker process of a decoding system: it prepares once, then times tokens on request."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import attrs

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816,
    "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64,
    "vocab_size": 16000, "max_position_embeddings": 512, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5, "initializer_range": 0.05, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
"""Model that all systems decode in float32, with seeded random weights."""

PROMPT = (11, 4093, 257, 15001, 733, 9001, 42, 6007)
SLOTS = 512
"""Slots of a static KV cache."""


@attrs.frozen
class WorkerConfig:
    """Configuration of one process: model folder, rank, processes, threads and store."""

    folder: Path
    rank: int
    processes: int
    threads: int
    store: Path


class Decoder(Protocol):
    """Prepared decoding system."""

    bytes: int
    """Bytes that this process must read from memory for a token: its weights."""

    def start(self, prompt: tuple[int, ...]) -> int:
        """Reset the cache, prefill a prompt, and return the next token."""
        ...

    def next(self, token: int) -> int:
        """Add a token, and return the most likely next token."""
        ...


def join(config: WorkerConfig) -> None:
    """Create the process group over loopback, with a file store."""
    import torch.distributed as distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{config.store}", rank=config.rank, world_size=config.processes
    )


def serve(prepare: Callable[[WorkerConfig], Decoder]) -> None:
    """Answer requests on standard input until it ends; output of libraries goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    given = json.loads(sys.argv[1])
    config = WorkerConfig(
        folder=Path(given["folder"]),
        rank=given["rank"],
        processes=given["processes"],
        threads=given["threads"],
        store=Path(given["store"]),
    )
    import torch

    torch.set_num_threads(config.threads)
    start = time.perf_counter()
    with torch.no_grad():
        decoder = prepare(config)
        time_tokens(decoder, 3)
        ready = {"bytes": decoder.bytes, "prepared": time.perf_counter() - start}
        print(json.dumps(ready), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(time_tokens(decoder, int(line))), file=answers, flush=True)


def time_tokens(decoder: Decoder, count: int) -> dict[str, list[float]]:
    """Decode tokens after the prompt, and return them with the seconds of each."""
    token = decoder.start(PROMPT)
    tokens, seconds = [], []
    for _ in range(count):
        start = time.perf_counter()
        token = decoder.next(token)
        seconds.append(time.perf_counter() - start)
        tokens.append(token)
    return {"tokens": tokens, "seconds": seconds}

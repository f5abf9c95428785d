"""One process of a contender: prepare once, then decode and time tokens whenever a line asks."""

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
"""The model that all contenders decode, in float32; its weights are random and seeded."""

PROMPT = (11, 4093, 257, 15001, 733, 9001, 42, 6007)
SLOTS = 512
"""Places of a static key-value cache."""


@attrs.frozen
class Job:
    """What one process is given: the model's folder and its place among the processes."""

    folder: Path
    rank: int
    processes: int
    threads: int
    store: Path


class Decoder(Protocol):
    """A prepared contender."""

    bytes: int
    """What this process must read from memory for a token: its weights, once."""

    def start(self, prompt: tuple[int, ...]) -> int:
        """Forget all earlier tokens, read a prompt, and return the token that follows it."""
        ...

    def next(self, token: int) -> int:
        """Take one more token and return the likeliest to follow."""
        ...


def join(job: Job) -> None:
    """Join the contender's processes over loopback; they meet in a file, so no port is opened."""
    import torch.distributed as distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{job.store}", rank=job.rank, world_size=job.processes
    )


def serve(prepare: Callable[[Job], Decoder]) -> None:
    """Answer requests on standard input until it ends; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    given = json.loads(sys.argv[1])
    job = Job(
        folder=Path(given["folder"]),
        rank=given["rank"],
        processes=given["processes"],
        threads=given["threads"],
        store=Path(given["store"]),
    )
    import torch

    torch.set_num_threads(job.threads)
    begun = time.perf_counter()
    with torch.no_grad():
        decoder = prepare(job)
        timed(decoder, 3)
        ready = {"bytes": decoder.bytes, "prepared": time.perf_counter() - begun}
        print(json.dumps(ready), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(timed(decoder, int(line))), file=answers, flush=True)


def timed(decoder: Decoder, count: int) -> dict[str, list[float]]:
    """Decode tokens after the prompt; the tokens, and the seconds that each took."""
    token = decoder.start(PROMPT)
    tokens, seconds = [], []
    for _ in range(count):
        begun = time.perf_counter()
        token = decoder.next(token)
        seconds.append(time.perf_counter() - begun)
        tokens.append(token)
    return {"tokens": tokens, "seconds": seconds}

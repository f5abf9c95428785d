"""Decoder with the eager tensor parallelism of transformers.

Needs accelerate (`pip install -e '.[hf,bench]'`).
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.distributed import DistributedConfig

from benchmarks.decode_worker import WorkerConfig, join, serve


class TransformersDecoder:
    """Plain decode loop with a dynamic cache, without the overhead of `generate`."""

    def __init__(self, config: WorkerConfig) -> None:
        join(config)
        self.model = AutoModelForCausalLM.from_pretrained(
            config.folder,
            dtype=torch.float32,
            distributed_config=DistributedConfig(tp_size=config.processes),
        )
        self.model.eval()
        self.bytes = sum(local_bytes(tensor) for tensor in self.model.parameters())
        self.cache = DynamicCache()

    def start(self, prompt: tuple[int, ...]) -> int:
        self.cache = DynamicCache()
        return self.forward(list(prompt))

    def next(self, token: int) -> int:
        return self.forward([token])

    def forward(self, tokens: list[int]) -> int:
        out = self.model(
            input_ids=torch.tensor([tokens]),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return int(out.logits[0, -1].argmax())


def local_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of this rank's part of a tensor."""
    local = getattr(tensor, "to_local", None)
    return (local() if local else tensor).nbytes


if __name__ == "__main__":
    serve(TransformersDecoder)

"""The tensor parallelism of transformers itself, eager, as its users get it: a peer.

It needs accelerate (`pip install -e '.[hf,bench]'`).
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.distributed import DistributedConfig

from benchmarks.contender import Job, join, serve


class Transformers:
    """A plain loop with a dynamic cache: `generate` adds its own work to every token."""

    def __init__(self, job: Job) -> None:
        join(job)
        self.model = AutoModelForCausalLM.from_pretrained(
            job.folder,
            dtype=torch.float32,
            distributed_config=DistributedConfig(tp_size=job.processes),
        )
        self.model.eval()
        self.bytes = sum(held(tensor) for tensor in self.model.parameters())
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


def held(tensor: torch.Tensor) -> int:
    """Bytes of the part that this rank has."""
    local = getattr(tensor, "to_local", None)
    return (local() if local else tensor).nbytes


if __name__ == "__main__":
    serve(Transformers)

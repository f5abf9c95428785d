"""Decoder with a Llama written by hand for one row of tokens, tensor-parallel and compiled."""

from __future__ import annotations

import json
import math

import torch
import torch.distributed as distributed
import torch.distributed._functional_collectives as functional
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks.decode_worker import SLOTS, WorkerConfig, join, serve

OPTIONS = {
    # Inductor forbids fused multiply-add by default; one-row products gain 3 % by it.
    "cpp.enable_floating_point_contract_flag": "fast",
    # Loops that read several weights in turn lose half of memory's speed.
    "cpp.max_horizontal_fusion_size": 1,
    # Weights and caches never change place or shape here.
    "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
}

NOT_READ = {"table", "cosine", "sine", "keys", "values"}
"""Of these a token reads a row, or what the cache holds."""


def product(row: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear layer to one row, in the form in which inductor reads weights fastest."""
    return (row.unsqueeze(-2) * weight).sum(-1)


def normal(row: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return row * torch.rsqrt(row.square().mean(-1, keepdim=True) + epsilon) * weight


def apply_rotary(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary position embeddings."""
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine


class Weights:
    """Slices of a folder's tensors for one rank."""

    def __init__(self, worker: WorkerConfig) -> None:
        self.file = safe_open(worker.folder / "model.safetensors", framework="pt")
        self.rank, self.processes = worker.rank, worker.processes

    def whole(self, name: str) -> Tensor:
        return self.file.get_tensor(name).clone()

    def rows(self, *names: str) -> Tensor:
        """Return the rank's rows of each tensor, concatenated."""
        return torch.cat([self.part(self.file.get_tensor(name), 0) for name in names])

    def columns(self, name: str) -> Tensor:
        return self.part(self.file.get_tensor(name), 1).clone()

    def part(self, tensor: Tensor, dim: int) -> Tensor:
        return tensor.chunk(self.processes, dim)[self.rank]


class Block(nn.Module):
    """One layer of one rank."""

    def __init__(self, weights: Weights, config: dict[str, int], place: str) -> None:
        super().__init__()
        self.processes = weights.processes
        self.epsilon = config["rms_norm_eps"]
        self.size = config["head_dim"]
        self.groups = config["num_key_value_heads"] // self.processes
        self.heads = config["num_attention_heads"] // self.processes
        attention, feed = f"{place}.self_attn", f"{place}.mlp"
        self.before = weights.whole(f"{place}.input_layernorm.weight")
        self.between = weights.whole(f"{place}.post_attention_layernorm.weight")
        self.qkv = weights.rows(*(f"{attention}.{name}_proj.weight" for name in "qkv"))
        self.out = weights.columns(f"{attention}.o_proj.weight")
        self.gate_up = weights.rows(f"{feed}.gate_proj.weight", f"{feed}.up_proj.weight")
        self.down = weights.columns(f"{feed}.down_proj.weight")
        self.keys = torch.zeros(self.groups, SLOTS, self.size)
        self.values = torch.zeros(self.groups, SLOTS, self.size)

    def forward(
        self, row: Tensor, where: Tensor, seen: Tensor, turn: tuple[Tensor, Tensor]
    ) -> Tensor:
        row = row + self.summed(
            self.attention(normal(row, self.before, self.epsilon), where, seen, turn)
        )
        return row + self.summed(self.feed(normal(row, self.between, self.epsilon)))

    def attention(
        self, row: Tensor, where: Tensor, seen: Tensor, turn: tuple[Tensor, Tensor]
    ) -> Tensor:
        joint = product(row, self.qkv).view(self.heads + 2 * self.groups, self.size)
        query, key, value = joint.split((self.heads, self.groups, self.groups))
        self.keys.index_copy_(1, where, apply_rotary(key, *turn).unsqueeze(1))
        self.values.index_copy_(1, where, value.unsqueeze(1))
        query = apply_rotary(query, *turn).view(self.groups, -1, self.size) / math.sqrt(self.size)
        scores = (query.unsqueeze(2) * self.keys.unsqueeze(1)).sum(-1)
        shares = scores.masked_fill(~seen, -math.inf).softmax(-1)
        mixed = (shares.unsqueeze(-1) * self.values.unsqueeze(1)).sum(2)
        return product(mixed.view(1, -1), self.out)

    def feed(self, row: Tensor) -> Tensor:
        gate, up = product(row, self.gate_up).chunk(2, -1)
        return product(nn.functional.silu(gate) * up, self.down)

    def summed(self, part: Tensor) -> Tensor:
        if self.processes == 1:
            return part
        return functional.all_reduce(part, "sum", distributed.group.WORLD)


class Llama(nn.Module):
    """The part of one rank; the table of tokens is whole, the head a slice of it."""

    def __init__(self, worker: WorkerConfig) -> None:
        super().__init__()
        config = json.loads((worker.folder / "config.json").read_text())
        weights = Weights(worker)
        self.processes, self.epsilon = worker.processes, config["rms_norm_eps"]
        self.table = weights.whole("model.embed_tokens.weight")
        self.head = weights.part(self.table, 0)
        self.first = worker.rank * len(self.head)
        self.blocks = nn.ModuleList(
            Block(weights, config, f"model.layers.{layer}")
            for layer in range(config["num_hidden_layers"])
        )
        self.norm = weights.whole("model.norm.weight")
        size = config["head_dim"]
        base = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        angles = torch.outer(torch.arange(SLOTS), base ** -(torch.arange(0, size, 2) / size))
        self.cosine, self.sine = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def forward(self, token: Tensor, where: Tensor) -> Tensor:
        """Return the most likely next token."""
        row = self.table[token]
        seen = torch.arange(SLOTS) <= where
        turn = self.cosine[where], self.sine[where]
        for block in self.blocks:
            row = block(row, where, seen, turn)
        best, index = product(normal(row, self.norm, self.epsilon), self.head).max(-1)
        if self.processes == 1:
            return index
        found = torch.stack((best, (index + self.first).to(best.dtype)), -1)
        found = functional.all_gather_tensor(found, 0, distributed.group.WORLD)
        return found[:, 1].gather(0, found[:, 0].argmax(0, keepdim=True)).long()


def pack_weights(model: Llama) -> int:
    """Move all weights into one block of memory for huge pages, and return the bytes read."""
    holders = [model, *model.blocks]
    stored = [
        (holder, name, tensor)
        for holder in holders
        for name, tensor in vars(holder).items()
        if isinstance(tensor, Tensor) and name not in NOT_READ
    ]
    block = torch.empty(sum(tensor.numel() for _, _, tensor in stored))
    parts = block.split([tensor.numel() for _, _, tensor in stored])
    for (holder, name, tensor), part in zip(stored, parts, strict=True):
        setattr(holder, name, part.view(tensor.shape).copy_(tensor))
    return block.nbytes


class Handwritten:
    """Decodes with the compiled step alone; a prompt is read token by token."""

    def __init__(self, worker: WorkerConfig) -> None:
        if worker.processes > 1:
            join(worker)
        model = Llama(worker)
        self.bytes = pack_weights(model)
        self.step = torch.compile(model, fullgraph=True, dynamic=False, options=OPTIONS)
        self.place = 0

    def start(self, prompt: tuple[int, ...]) -> int:
        self.place = 0
        return [self.next(token) for token in prompt][-1]

    def next(self, token: int) -> int:
        found = self.step(torch.tensor([token]), torch.tensor([self.place]))
        self.place += 1
        return int(found)


if __name__ == "__main__":
    serve(Handwritten)

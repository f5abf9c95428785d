"""Capacity in whole sequences: block allocation, activations and reserves as engines have them."""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import files

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.price.cost.dtypes import SIXTEEN
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.serving.engines import share_of
from parframe.price.work.work import Product, Stage, Work

GIB = 1 << 30


@attrs.frozen
class MemoryPolicy:
    """Memory allocation of a serving engine.

    It gives ``cache_fraction`` of a device to the KV cache: of the total memory, or of what weights
    and activations leave. The reserve has the context, libraries and CUDA graphs, and further
    bytes for each other rank of a process group. ``bytes_per_logit`` are those of the rows that are
    sampled at once. A block of the KV cache has ``block_size`` positions.
    """

    name: str
    cache_fraction: float
    fraction_of_total: bool
    reserved_bytes: float
    reserved_bytes_per_peer: float
    bytes_per_logit: float
    max_sampled_rows: int
    max_batched_tokens: int
    block_size: int


@attrs.frozen
class StageMemory:
    """Bytes of the busiest device of a stage.

    ``cache_budget`` is what is left for the KV cache, ``sequence`` the KV cache of one sequence.
    """

    weights: float
    activations: float
    cache_budget: float
    sequence: float


@attrs.frozen
class Capacity:
    """Number of sequences that fit on a plan's devices, over all replicas.

    ``stage`` is the stage with the smallest capacity.
    """

    sequences: int
    stage: int
    stages: tuple[StageMemory, ...]


@cache
def memory_policy(name: str = "vllm") -> MemoryPolicy:
    """Return the memory policy of a serving engine: ``vllm`` or ``trtllm``.

    Raises
    ------
    ParframeError
        Of kind ``usage``, if the engine's memory policy is unknown.
    """
    text = files("parframe.price").joinpath("data", "memory.toml").read_text(encoding="utf-8")
    policies = tomllib.loads(text)["engine"]
    if name not in policies:
        raise ParframeError(
            "usage",
            f"engine {name!r}",
            f"has no known memory policy{did_you_mean(name, policies)}",
            f"use one of {', '.join(policies)}",
        )
    entry = policies[name]
    for key in ("reserved", "reserved_per_peer"):
        entry[key.replace("reserved", "reserved_bytes", 1)] = entry.pop(f"{key}_gib") * GIB
    return MemoryPolicy(name, **entry)


def activation_bytes(work: Work, stage: Stage, tokens: int, policy: MemoryPolicy) -> float:
    """Return the peak bytes of activations: those of a step's tokens, or the logits of its rows."""
    # Each replica has a step of its own.
    alive = stage.footprint.activations * tokens * SIXTEEN * work.replicas
    heads = (k.columns for k in stage.kernels if isinstance(k, Product) and k.per == "sequence")
    gathered = (e.elements for e in stage.communication if e.per == "sequence")
    logits = max((*heads, *gathered), default=0.0)
    return max(alive, logits * policy.max_sampled_rows * policy.bytes_per_logit)


def max_sequences(
    work: Work,
    memory: float,
    length: int,
    weights: str = "bf16",
    cache_dtype: str = "bf16",
    policy: MemoryPolicy | str = "vllm",
    tokens: int | None = None,
    cache_fraction: float | None = None,
) -> Capacity:
    """Return the maximum number of sequences that fit on the devices of a plan.

    ``memory`` is the bytes of a device that software can use, ``length`` the positions that are
    allocated for each sequence, ``tokens`` the maximum of a step of each replica. The last two
    arguments replace those of the policy.

    Raises
    ------
    ParframeError
        Of kind ``memory``, if the model has no KV cache.
    """
    policy = policy if isinstance(policy, MemoryPolicy) else memory_policy(policy)
    if cache_fraction is not None:
        policy = attrs.evolve(policy, cache_fraction=cache_fraction)
    device = DeviceMemory.with_dtypes(memory, weights, cache_dtype)
    batched = tokens or policy.max_batched_tokens
    stages = tuple(
        _stage_memory(work, stage, device, length, policy, batched) for stage in work.stages
    )
    rows = [
        math.floor(stage.cache_budget / stage.sequence + 1e-9) if stage.sequence else math.inf
        for stage in stages
    ]
    smallest = min(range(len(rows)), key=rows.__getitem__)
    if min(stage.cache_budget for stage in stages) < 0:
        fullest = min(range(len(stages)), key=lambda number: stages[number].cache_budget)
        return Capacity(0, fullest, stages)
    if rows[smallest] == math.inf:
        raise ParframeError(
            "memory",
            "KV cache",
            "the model has none, so memory does not limit the number of sequences",
            "use `parframe check` to compute the memory of a batch",
        )
    return Capacity(int(rows[smallest]) * work.replicas, smallest, stages)


def _stage_memory(
    work: Work, stage: Stage, device: DeviceMemory, length: int, policy: MemoryPolicy, tokens: int
) -> StageMemory:
    weights = device.weight_bytes(stage.footprint)
    activations = activation_bytes(work, stage, tokens, policy)
    peers = max((len(e.ranks) - 1 for e in stage.communication), default=0)
    taken = weights + activations + (policy.reserved_bytes + policy.reserved_bytes_per_peer * peers)
    budget = share_of(device.total, taken, policy.cache_fraction, policy.fraction_of_total)
    sequence = device.sequence_bytes(stage.footprint, length, policy.block_size)
    return StageMemory(weights, activations, budget, sequence)

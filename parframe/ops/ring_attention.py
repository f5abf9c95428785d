"""Ring attention: the distributed form of attention in which no device holds all keys and values.

Keys and values pass round the ranks as a ring (Liu et al. 2023, "Ring Attention"), and each rank
keeps its queries. Every rank attends to one block after the other and keeps a running softmax: the
greatest logit so far, the sum of the weights, and the sum of the weighted values, both relative to
that logit.

Real ranks choose between the ring and its reverse: all queries are gathered, attend to every
rank's own keys, and the results are merged by their softmaxes' greatest logits and sums ("pass-Q",
Yang et al. 2024, "Context Parallelism for Scalable Million-Token Inference"). They do whatever
moves fewer elements: the keys of a prompt, or the queries of a single token against a long cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
import torch.distributed as dist

from parframe.ops.attention import attention_logits, merge_heads, sink_logits
from parframe.ops.group_registry import find_group, transfer_device

_NEEDED = ("query", "key", "scale", "causal")
_OPTIONAL = ("query_positions", "key_positions", "mask", "window", "softcap")


def simulate(ranks: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    """Compute ``parframe.attention`` for the queries of every rank of a group.

    Every rank has its part of the operator's arguments, and in ``travels`` the names of those that
    pass round. Results are ``[batch, sequence, heads, size of a value]``.
    """
    blocks = [{slot: own[slot] for slot in own["travels"]} for own in ranks]
    count = len(ranks)
    results = []
    for rank, own in enumerate(ranks):
        running = None
        for step in range(count):
            running = add_block(running, {**own, **blocks[(rank - step) % count]})
        results.append(finish(running, own))
    return results


def measure_sent(ranks: Sequence[Mapping[str, Any]], rank: int) -> dict[str, int]:
    """Count the elements that a rank passes on: its own block, and all it receives but the last."""
    passed = [(rank - step) % len(ranks) for step in range(len(ranks) - 1)]
    slots = ranks[rank]["travels"]
    return {slot: sum(ranks[other][slot].numel() for other in passed) for slot in slots}


@torch.library.custom_op("parframe::ring_attention", mutates_args=())
def ring_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
    sinks: torch.Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
    queries: Sequence[int],
    keys: Sequence[int],
    rank: int,
    group: str,
) -> torch.Tensor:
    """Compute ``parframe.attention`` of this rank's queries over the keys of all ranks.

    Arguments are those of ``parframe.attention`` for this rank's queries and keys; positions are
    ``[rows, length]`` or ``[length]``. Then follow the numbers of queries and of keys of every
    rank, this rank's number in the group, and the group's name. The result is ``[rows, own queries,
    heads, size of a value]``.
    """
    own = {
        "query": query,
        "key": key,
        "value": value,
        "query_positions": query_positions,
        "key_positions": key_positions,
        "sinks": sinks,
        "scale": scale,
        "causal": causal,
        "window": window,
        "softcap": softcap,
    }
    heads, width = query.shape[1], key.shape[3] + value.shape[3]
    gathered = sum(queries) * heads * (width + 2)
    passed = (len(keys) - 1) * max(keys) * key.shape[1] * width
    compute = _gather_queries if gathered < passed else _pass_keys
    return compute(own, queries, keys, rank, find_group(group)).contiguous()


@ring_attention.register_fake
def _ring_attention_shape(query, key, value, *rest):  # type: ignore[no-untyped-def]
    rows, heads, queries, _ = query.shape
    return value.new_empty(rows, queries, heads, value.shape[-1])


RUN = torch.ops.parframe.ring_attention.default


@attrs.frozen
class _Running:
    """The softmax over the keys of the blocks so far, for each query."""

    greatest: torch.Tensor
    total: torch.Tensor
    weighted: torch.Tensor


def add_block(running: _Running | None, arguments: Mapping[str, Any]) -> _Running | None:
    """Return the running softmax with one more block of keys."""
    if arguments["key"].shape[2] == 0:
        return running
    value = arguments["value"]
    needed: dict[str, Any] = {slot: arguments[slot] for slot in _NEEDED}
    optional: dict[str, Any] = {slot: arguments.get(slot) for slot in _OPTIONAL}
    logits = attention_logits(**needed, **optional)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    greatest = logits.amax(-1, keepdim=True)
    if running is None:
        running = _begin(arguments.get("sinks"), logits, value)
    greatest = torch.maximum(greatest, running.greatest)
    # where even the greatest logit is minus infinity, all weights so far are zero
    shift = greatest.masked_fill(greatest == -torch.inf, 0.0)
    weights = torch.exp(logits - shift)
    fade = torch.exp(running.greatest - shift)
    weighted = torch.matmul(weights.to(value.dtype), value.unsqueeze(2)).to(weights.dtype)
    return _Running(
        greatest,
        running.total * fade + weights.sum(-1, keepdim=True),
        running.weighted * fade + weighted,
    )


def _begin(sinks: torch.Tensor | None, logits: torch.Tensor, value: torch.Tensor) -> _Running:
    """Return the softmax before the first block: of the sinks alone, which have no value."""
    weighted = logits.new_zeros((*logits.shape[:-1], value.shape[-1]))
    if sinks is None:
        nothing = logits.new_zeros((*logits.shape[:-1], 1))
        return _Running(nothing - torch.inf, nothing, weighted)
    greatest = sink_logits(sinks, logits).to(logits.dtype)
    return _Running(greatest, torch.ones_like(greatest), weighted)


def finish(running: _Running | None, own: Mapping[str, Any]) -> torch.Tensor:
    """Return the operator's result; zeros where there was no key at all."""
    query: torch.Tensor = own["query"]
    value: torch.Tensor = own["value"]
    if running is None:
        batch, heads, queries, _ = query.shape
        return value.new_zeros(batch, queries, heads, value.shape[-1])
    result = (running.weighted / running.total).to(value.dtype)
    return merge_heads(result, query.shape[1])


def _pass_keys(
    own: dict[str, Any], queries: Sequence[int], keys: Sequence[int], rank: int, group: Any
) -> torch.Tensor:
    """Pass keys and values round; after each round a rank has those of the one before it."""
    count = len(keys)
    slots = [slot for slot in ("key", "value", "key_positions") if own[slot] is not None]
    device = transfer_device(own["key"].device)
    block = {slot: own[slot].contiguous() for slot in slots}
    after, before = ((rank + step) % count for step in (1, -1))
    peers = [dist.get_global_rank(group, other) for other in (after, before)]
    running = None
    for step in range(count):
        running = add_block(running, {**own, **block})
        if step == count - 1:
            break
        length = keys[(rank - step - 1) % count]
        sent = {slot: block[slot].to(device) for slot in slots}
        received = {slot: _of_length(sent[slot], slot, length) for slot in slots}
        transfers = [dist.P2POp(dist.isend, sent[slot], peers[0], group) for slot in slots]
        transfers += [dist.P2POp(dist.irecv, received[slot], peers[1], group) for slot in slots]
        for work in dist.batch_isend_irecv(transfers):
            work.wait()
        block = {slot: received[slot].to(own[slot].device) for slot in slots}
    return finish(running, own)


def _of_length(tensor: torch.Tensor, slot: str, length: int) -> torch.Tensor:
    dim = -1 if slot == "key_positions" else 2
    shape = list(tensor.shape)
    shape[dim] = length
    return tensor.new_empty(shape)


def _gather_queries(
    own: dict[str, Any], queries: Sequence[int], keys: Sequence[int], rank: int, group: Any
) -> torch.Tensor:
    """Gather all queries, attend to this rank's keys, and send each rank its partial results."""
    all_queries = _gather(own["query"], 2, queries, group)
    positions = _gather(own["query_positions"], -1, queries, group)
    partials = [
        _partial({**own, "query": query, "query_positions": position})
        for query, position in zip(all_queries, positions, strict=True)
    ]
    sizes = [partial.numel() for partial in partials]
    own_sizes = [partials[rank].numel()] * len(partials)
    sent = torch.cat([partial.reshape(-1) for partial in partials])
    received = sent.new_empty(sum(own_sizes))
    dist.all_to_all_single(received, sent, own_sizes, sizes, group=group)
    return _merge(received.view(len(partials), *partials[rank].shape), own)


def _gather(tensor: torch.Tensor | None, dim: int, lengths: Sequence[int], group: Any) -> list[Any]:
    """Return every rank's tensor, each of its own length along a dim."""
    if tensor is None:
        return [None] * len(lengths)
    first = tensor.movedim(dim, 0)
    missing = max(lengths) - first.shape[0]
    if missing:
        first = torch.cat([first, first.new_zeros(missing, *first.shape[1:])])
    whole = first.new_empty(len(lengths) * first.shape[0], *first.shape[1:])
    dist.all_gather_into_tensor(whole, first.contiguous(), group=group)
    pieces = whole.chunk(len(lengths))
    return [p[:length].movedim(0, dim) for p, length in zip(pieces, lengths, strict=True)]


def _partial(arguments: dict[str, Any]) -> torch.Tensor:
    """Attend to one rank's keys; return the weighted values, the greatest logit and the sum.

    The result is ``[rows, kv_heads, group, queries, size + 2]``.
    """
    value = arguments["value"]
    logits = attention_logits(
        arguments["query"], arguments["key"], arguments["query_positions"],
        arguments["key_positions"], None, arguments["scale"], arguments["causal"],
        arguments["window"], arguments["softcap"],
    )  # fmt: skip
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    greatest = logits.amax(-1, keepdim=True)
    weights = torch.exp(logits - greatest)
    weighted = weights @ value.unsqueeze(2).to(weights.dtype)
    return torch.cat([weighted, greatest, weights.sum(-1, keepdim=True)], -1)


def _merge(partials: torch.Tensor, own: dict[str, Any]) -> torch.Tensor:
    """Merge the partial results of all ranks' keys into the result of `ring_attention`."""
    weighted, greatest, total = (
        partials[..., :-2], partials[..., -2:-1], partials[..., -1:]
    )  # fmt: skip
    most = greatest.amax(0)
    if own["sinks"] is not None:
        sinks = own["sinks"].reshape(1, *most.shape[1:3], 1, 1).to(most.dtype)
        most = torch.maximum(most, sinks)
    factors = torch.exp(greatest - most)
    whole = (total * factors).sum(0)
    if own["sinks"] is not None:
        whole = whole + torch.exp(sinks - most)
    result = (weighted * factors).sum(0) / whole
    return merge_heads(result.to(own["value"].dtype), own["query"].shape[1])

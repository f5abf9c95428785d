"""Attention whose keys lie on several devices: blocks of keys go round, or queries visit them.

Keys and values pass round the devices as a ring (Liu et al. 2023, "Ring Attention"), each device
keeping its queries; or all queries are gathered, meet every device's own keys, and what they found
there is merged by its softmax's greatest logit and sum ("pass-Q", Yang et al. 2024, "Context
Parallelism for Scalable Million-Token Inference"). Whatever moves fewer elements is done: of a
prompt the keys move, and of a single token against a long cache the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from parframe.loading.operators import logits_of, ungrouped
from parframe.runtime.group_names import group_of
from parframe.runtime.process_groups import wire
from parframe.simulation.ring_attention import finished, met


@torch.library.custom_op("parframe::attention_across", mutates_args=())
def attention_across(
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
    place: int,
    group: str,
) -> torch.Tensor:
    """``parframe.attention`` of this device's queries over all devices' keys.

    Parameters
    ----------
    query, key, value, query_positions, key_positions
        This device's; positions are ``[rows, length]`` or ``[length]``.
    sinks, scale, causal, window, softcap
        As for ``parframe.attention``.
    queries, keys
        How many of each every member of the group has.
    place
        This device's place in the group.
    group
        The group's name.

    Returns
    -------
    torch.Tensor
        ``[rows, own queries, heads, size of a value]``.
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
    visiting = sum(queries) * heads * (width + 2)
    passing = (len(keys) - 1) * max(keys) * key.shape[1] * width
    way = _visiting if visiting < passing else _passing
    return way(own, queries, keys, place, group_of(group)).contiguous()


@attention_across.register_fake
def _shape(query, key, value, *rest):  # type: ignore[no-untyped-def]
    rows, heads, queries, _ = query.shape
    return value.new_empty(rows, queries, heads, value.shape[-1])


def _passing(
    own: dict[str, Any], queries: Sequence[int], keys: Sequence[int], place: int, group: Any
) -> torch.Tensor:
    """Keys and values go round; after each round a device has those of the one before."""
    count = len(keys)
    slots = [slot for slot in ("key", "value", "key_positions") if own[slot] is not None]
    between = wire(own["key"].device)
    block = {slot: own[slot].contiguous() for slot in slots}
    after, before = ((place + step) % count for step in (1, -1))
    peers = [dist.get_global_rank(group, at) for at in (after, before)]
    running = None
    for step in range(count):
        running = met(running, {**own, **block})
        if step == count - 1:
            break
        length = keys[(place - step - 1) % count]
        going = {slot: block[slot].to(between) for slot in slots}
        coming = {slot: _of_length(going[slot], slot, length) for slot in slots}
        transfers = [dist.P2POp(dist.isend, going[slot], peers[0], group) for slot in slots]
        transfers += [dist.P2POp(dist.irecv, coming[slot], peers[1], group) for slot in slots]
        for work in dist.batch_isend_irecv(transfers):
            work.wait()
        block = {slot: coming[slot].to(own[slot].device) for slot in slots}
    return finished(running, own)


def _of_length(tensor: torch.Tensor, slot: str, length: int) -> torch.Tensor:
    axis = -1 if slot == "key_positions" else 2
    shape = list(tensor.shape)
    shape[axis] = length
    return tensor.new_empty(shape)


def _visiting(
    own: dict[str, Any], queries: Sequence[int], keys: Sequence[int], place: int, group: Any
) -> torch.Tensor:
    """All queries meet the keys of every device."""
    visitors = _gathered(own["query"], 2, queries, group)
    positions = _gathered(own["query_positions"], -1, queries, group)
    found = [
        _partial({**own, "query": query, "query_positions": at})
        for query, at in zip(visitors, positions, strict=True)
    ]
    sizes = [partial.numel() for partial in found]
    home = [found[place].numel()] * len(found)
    sent = torch.cat([partial.reshape(-1) for partial in found])
    came = sent.new_empty(sum(home))
    dist.all_to_all_single(came, sent, home, sizes, group=group)
    return _merged(came.view(len(found), *found[place].shape), own)


def _gathered(
    tensor: torch.Tensor | None, axis: int, lengths: Sequence[int], group: Any
) -> list[Any]:
    """Every member's tensor, each of its own length along an axis."""
    if tensor is None:
        return [None] * len(lengths)
    first = tensor.movedim(axis, 0)
    missing = max(lengths) - first.shape[0]
    if missing:
        first = torch.cat([first, first.new_zeros(missing, *first.shape[1:])])
    whole = first.new_empty(len(lengths) * first.shape[0], *first.shape[1:])
    dist.all_gather_into_tensor(whole, first.contiguous(), group=group)
    pieces = whole.chunk(len(lengths))
    return [p[:length].movedim(0, axis) for p, length in zip(pieces, lengths, strict=True)]


def _partial(arguments: dict[str, Any]) -> torch.Tensor:
    """What queries find in one device's keys: weighted values, and the greatest logit and sum.

    ``[rows, kv_heads, heads of each, queries, size + 2]``.
    """
    value = arguments["value"]
    logits = logits_of(
        arguments["query"], arguments["key"], arguments["query_positions"],
        arguments["key_positions"], None, arguments["scale"], arguments["causal"],
        arguments["window"], arguments["softcap"],
    )  # fmt: skip
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    greatest = logits.amax(-1, keepdim=True)
    weights = torch.exp(logits - greatest)
    weighted = weights @ value.unsqueeze(2).to(weights.dtype)
    return torch.cat([weighted, greatest, weights.sum(-1, keepdim=True)], -1)


def _merged(partials: torch.Tensor, own: dict[str, Any]) -> torch.Tensor:
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
    return ungrouped(result.to(own["value"].dtype), own["query"].shape[1])

"""Ring attention: the blocks of keys and values go round, each device keeps its queries.

Every device meets one block after the other and keeps a running softmax: the greatest logit so
far, the sum of the weights, and the sum of the weighted values, both relative to that logit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from parframe.loading.operators import logits_of, sinks_of, ungrouped

_NEEDED = ("query", "key", "scale", "causal")
_OPTIONAL = ("query_positions", "key_positions", "mask", "window", "softcap")


def attention(members: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    """What ``parframe.attention`` gives, for the queries of every member of a group.

    Parameters
    ----------
    members
        For every member the operator's arguments: its own part of each, and in ``travels`` the
        names of those that go round.

    Returns
    -------
    list of torch.Tensor
        For every member ``[batch, sequence, heads, size of a value]``.
    """
    blocks = [{slot: own[slot] for slot in own["travels"]} for own in members]
    count = len(members)
    results = []
    for place, own in enumerate(members):
        running = None
        for step in range(count):
            arguments = {**own, **blocks[(place - step) % count]}
            running = met(running, arguments)
        results.append(finished(running, own))
    return results


def sent(members: Sequence[Mapping[str, Any]], place: int) -> dict[str, int]:
    """How many elements a member passes on: its own block, and all that it gets but the last."""
    passed = [(place - step) % len(members) for step in range(len(members) - 1)]
    slots = members[place]["travels"]
    return {slot: sum(members[other][slot].numel() for other in passed) for slot in slots}


@attrs.frozen
class _Running:
    """The softmax over the keys met so far, for each query."""

    greatest: torch.Tensor
    total: torch.Tensor
    weighted: torch.Tensor


def met(running: _Running | None, arguments: Mapping[str, Any]) -> _Running | None:
    """The softmax with one more block of keys."""
    if arguments["key"].shape[2] == 0:
        return running
    value = arguments["value"]
    needed: dict[str, Any] = {slot: arguments[slot] for slot in _NEEDED}
    optional: dict[str, Any] = {slot: arguments.get(slot) for slot in _OPTIONAL}
    logits = logits_of(**needed, **optional)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    greatest = logits.amax(-1, keepdim=True)
    if running is None:
        running = _begun(arguments.get("sinks"), logits, value)
    greatest = torch.maximum(greatest, running.greatest)
    # where even the greatest logit is minus infinity, all weights so far are zero
    shift = greatest.masked_fill(greatest == -torch.inf, 0.0)
    weights = torch.exp(logits - shift)
    fade = torch.exp(running.greatest - shift)
    met = torch.matmul(weights.to(value.dtype), value.unsqueeze(2)).to(weights.dtype)
    return _Running(
        greatest,
        running.total * fade + weights.sum(-1, keepdim=True),
        running.weighted * fade + met,
    )


def _begun(sinks: torch.Tensor | None, logits: torch.Tensor, value: torch.Tensor) -> _Running:
    """The softmax before the first block: of the sinks alone, which have no value."""
    weighted = logits.new_zeros((*logits.shape[:-1], value.shape[-1]))
    if sinks is None:
        nothing = logits.new_zeros((*logits.shape[:-1], 1))
        return _Running(nothing - torch.inf, nothing, weighted)
    greatest = sinks_of(sinks, logits).to(logits.dtype)
    return _Running(greatest, torch.ones_like(greatest), weighted)


def finished(running: _Running | None, own: Mapping[str, Any]) -> torch.Tensor:
    """What the operator gives; zeros where there was no key at all."""
    query: torch.Tensor = own["query"]
    value: torch.Tensor = own["value"]
    if running is None:
        batch, heads, queries, _ = query.shape
        return value.new_zeros(batch, queries, heads, value.shape[-1])
    result = (running.weighted / running.total).to(value.dtype)
    return ungrouped(result, query.shape[1])

"""Experts on several devices: tokens go to where their experts are, and results come back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from parframe.runtime.group_names import group_of
from parframe.simulation.device_operators import some_experts


@torch.library.custom_op("parframe::routed_experts", mutates_args=())
def routed_experts(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
    activation: str,
    gates: int,
    interleaved: bool,
    transposed: bool,
    column: int,
    firsts: Sequence[int],
    counts: Sequence[int],
    place: int,
    group: str,
) -> torch.Tensor:
    """``parframe.experts`` of this device's tokens, over all devices' experts.

    Every token is sent once to each device that has one of its experts, with its choices; it gets
    back one weighted sum from each. No token is dropped, and none is padded.

    Parameters
    ----------
    hidden, ids, weights
        This device's tokens and their choices.
    up, up_bias, down, down_bias, activation, gates, interleaved, transposed
        As for ``parframe.experts``; this device's experts.
    column
        Where its columns of the experts begin.
    firsts, counts
        The number of every member's first expert, and how many it has.
    place
        This device's place in the group.
    group
        The group's name.
    """
    members = group_of(group)
    chosen = [
        ((ids >= first) & (ids < first + count)).any(1).nonzero()[:, 0]
        for first, count in zip(firsts, counts, strict=True)
    ]
    leaving = [len(tokens) for tokens in chosen]
    coming = _counts(leaving, hidden, members)
    order = torch.cat(chosen)
    rows, choices, shares = (
        _sent(tensor[order], leaving, coming, members) for tensor in (hidden, ids, weights)
    )
    computed = some_experts(
        rows, choices, shares, up, down, activation, gates, interleaved, transposed,
        firsts[place], column, up_bias, down_bias,
    )  # fmt: skip
    back = _sent(computed, coming, leaving, members)
    wide = torch.promote_types(hidden.dtype, weights.dtype)
    result = hidden.new_zeros(hidden.shape[0], back.shape[1], dtype=wide)
    result.index_add_(0, order, back.to(wide))
    return result.to(hidden.dtype)


@routed_experts.register_fake
def _routed_shape(hidden, ids, weights, up, up_bias, down, down_bias, *rest):  # type: ignore[no-untyped-def]
    return hidden.new_empty(hidden.shape[0], down.shape[2 if rest[3] else 1])


@torch.library.custom_op("parframe::some_experts", mutates_args=())
def some(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
    activation: str,
    gates: int,
    interleaved: bool,
    transposed: bool,
    first: int,
    column: int,
) -> torch.Tensor:
    """``parframe.experts`` of a part of the experts, as one operator for a compiler."""
    return some_experts(
        hidden, ids, weights, up, down, activation, gates, interleaved, transposed, first, column,
        up_bias, down_bias,
    )  # fmt: skip


@some.register_fake
def _some_shape(hidden, ids, weights, up, up_bias, down, down_bias, *rest):  # type: ignore[no-untyped-def]
    return hidden.new_empty(hidden.shape[0], down.shape[2 if rest[3] else 1])


def _counts(leaving: Sequence[int], like: torch.Tensor, group: dist.ProcessGroup) -> list[int]:
    """How many tokens come from every member, of those that leave for each."""
    sent = torch.tensor(leaving, dtype=torch.int64, device=like.device)
    came = torch.empty_like(sent)
    dist.all_to_all_single(came, sent, group=group)
    found: list[int] = came.tolist()
    return found


def _sent(
    rows: torch.Tensor, leaving: Sequence[int], coming: Sequence[int], group: dist.ProcessGroup
) -> torch.Tensor:
    came = rows.new_empty(sum(coming), rows.shape[1])
    dist.all_to_all_single(came, rows.contiguous(), [*coming], [*leaving], group=group)
    return came

"""Expert dispatch: the distributed form of experts in which tokens travel to their experts.

Each rank sorts its tokens by the ranks of their experts and sends every token once to each such
rank, with its choices there; it receives one weighted sum for each token that it sent. No token is
dropped, and none is padded (as in DeepEP and in transformers' own dispatch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from parframe.ops.experts import local_experts
from parframe.ops.group_registry import find_group

_TOKENS = ("hidden", "ids", "weights")
_COMMUNICATION = ("axes", "tag", "travels")


def simulate(ranks: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    """Compute ``parframe.experts`` (``[tokens, out]``) for the tokens of every rank of a group.

    Every rank has the operator's arguments: its own tokens with their choices, and its own experts,
    of which ``first`` is the number of the first one.
    """
    results = [_zeros(own) for own in ranks]
    for other in ranks:
        sent = [_tokens_for(other, own) for own in ranks]
        hidden, ids, weights = (
            torch.cat([own[slot][tokens] for own, tokens in zip(ranks, sent, strict=True)])
            for slot in _TOKENS
        )
        rest = {slot: a for slot, a in other.items() if slot not in (*_TOKENS, *_COMMUNICATION)}
        computed = local_experts(hidden=hidden, ids=ids, weights=weights, **rest)
        start = 0
        for result, tokens in zip(results, sent, strict=True):
            part = computed[start : start + len(tokens)]
            result.index_add_(0, tokens, part.to(result.dtype))
            start += len(tokens)
    return [result.to(own["hidden"].dtype) for result, own in zip(results, ranks, strict=True)]


def measure_sent(ranks: Sequence[Mapping[str, Any]], rank: int) -> dict[str, int]:
    """Count the elements that a rank sends to others: its tokens, and the results of theirs."""
    own = ranks[rank]
    others = [other for number, other in enumerate(ranks) if number != rank]
    tokens = sum(len(_tokens_for(other, own)) for other in others)
    results = sum(len(_tokens_for(own, other)) for other in others)
    return {"hidden": tokens * own["hidden"].shape[1] + results * _width(own)}


@torch.library.custom_op("parframe::expert_dispatch", mutates_args=())
def expert_dispatch(
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
    rank: int,
    group: str,
) -> torch.Tensor:
    """Compute ``parframe.experts`` of this rank's tokens, over the experts of all ranks.

    The arguments are those of ``parframe.experts`` for this rank's tokens and experts, then the
    number of this rank's first inner column, the number of every rank's first expert (``firsts``)
    and its number of experts (``counts``), this rank's number in the group, and the group's name.
    """
    process_group = find_group(group)
    chosen = [
        ((ids >= first) & (ids < first + count)).any(1).nonzero()[:, 0]
        for first, count in zip(firsts, counts, strict=True)
    ]
    sent = [len(tokens) for tokens in chosen]
    received = _receive_counts(sent, hidden, process_group)
    order = torch.cat(chosen)
    rows, choices, shares = (
        _all_to_all(tensor[order], sent, received, process_group)
        for tensor in (hidden, ids, weights)
    )
    computed = local_experts(
        rows, choices, shares, up, down, activation, gates, interleaved, transposed,
        firsts[rank], column, up_bias, down_bias,
    )  # fmt: skip
    combined = _all_to_all(computed, received, sent, process_group)
    wide = torch.promote_types(hidden.dtype, weights.dtype)
    result = hidden.new_zeros(hidden.shape[0], combined.shape[1], dtype=wide)
    result.index_add_(0, order, combined.to(wide))
    return result.to(hidden.dtype)


@expert_dispatch.register_fake
def _expert_dispatch_shape(hidden, ids, weights, up, up_bias, down, down_bias, *rest):  # type: ignore[no-untyped-def]
    return hidden.new_empty(hidden.shape[0], down.shape[2 if rest[3] else 1])


RUN = torch.ops.parframe.expert_dispatch.default


def _receive_counts(sent: Sequence[int], like: torch.Tensor, group: dist.ProcessGroup) -> list[int]:
    """Return how many tokens come from every rank, given how many go to each."""
    own = torch.tensor(sent, dtype=torch.int64, device=like.device)
    others = torch.empty_like(own)
    dist.all_to_all_single(others, own, group=group)
    counts: list[int] = others.tolist()
    return counts


def _all_to_all(
    rows: torch.Tensor, sent: Sequence[int], received: Sequence[int], group: dist.ProcessGroup
) -> torch.Tensor:
    result = rows.new_empty(sum(received), rows.shape[1])
    dist.all_to_all_single(result, rows.contiguous(), [*received], [*sent], group=group)
    return result


def _tokens_for(other: Mapping[str, Any], own: Mapping[str, Any]) -> torch.Tensor:
    """Return the numbers of a rank's tokens that have a choice among another rank's experts."""
    first = other["first"]
    ids: torch.Tensor = own["ids"]
    chosen = (ids >= first) & (ids < first + other["up"].shape[0])
    tokens: torch.Tensor = chosen.any(1).nonzero()[:, 0]
    return tokens


def _zeros(own: Mapping[str, Any]) -> torch.Tensor:
    """Return zeros for a rank's results, of the widest dtype that is summed into them."""
    hidden = own["hidden"]
    wide = torch.promote_types(hidden.dtype, own["weights"].dtype)
    result: torch.Tensor = hidden.new_zeros(hidden.shape[0], _width(own), dtype=wide)
    return result


def _width(own: Mapping[str, Any]) -> int:
    return int(own["down"].shape[2 if own["transposed"] else 1])

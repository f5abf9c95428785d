"""Experts by all-to-all: tokens go to the devices that have their experts, results come back.

Each device sorts its tokens by where their experts are and sends every token once to each such
device, with the choices that it is to make there; it gets back one weighted sum for each that it
sent. No token is dropped, and none is padded (as in DeepEP and in transformers' own dispatch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from parframe.simulation.device_operators import some_experts

_OWN = ("hidden", "ids", "weights")
_AROUND = ("axes", "tag", "travels")


def experts(members: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    """What ``parframe.experts`` gives, for the tokens of every member of a group.

    Parameters
    ----------
    members
        For every member the operator's arguments: its own tokens with their choices, its own
        experts, of which ``first`` is the number of the first one.

    Returns
    -------
    list of torch.Tensor
        For every member ``[tokens, out]``.
    """
    results = [_nothing(own) for own in members]
    for there in members:
        arrived = [_bound_for(there, own) for own in members]
        rows = torch.cat([own["hidden"][at] for own, at in zip(members, arrived, strict=True)])
        ids = torch.cat([own["ids"][at] for own, at in zip(members, arrived, strict=True)])
        weights = torch.cat([own["weights"][at] for own, at in zip(members, arrived, strict=True)])
        known = {slot: arg for slot, arg in there.items() if slot not in (*_OWN, *_AROUND)}
        computed = some_experts(hidden=rows, ids=ids, weights=weights, **known)
        start = 0
        for result, at in zip(results, arrived, strict=True):
            part = computed[start : start + len(at)]
            result.index_add_(0, at, part.to(result.dtype))
            start += len(at)
    return [result.to(own["hidden"].dtype) for result, own in zip(results, members, strict=True)]


def sent(members: Sequence[Mapping[str, Any]], place: int) -> dict[str, int]:
    """How many elements a member sends to others: its tokens, and the results of theirs."""
    here = members[place]
    others = [own for number, own in enumerate(members) if number != place]
    tokens = sum(len(_bound_for(there, here)) for there in others)
    results = sum(len(_bound_for(here, own)) for own in others)
    return {"hidden": tokens * here["hidden"].shape[1] + results * _width(here)}


def _bound_for(there: Mapping[str, Any], own: Mapping[str, Any]) -> torch.Tensor:
    """The numbers of a member's tokens that have a choice among another's experts."""
    first = there["first"]
    ids: torch.Tensor = own["ids"]
    chosen = (ids >= first) & (ids < first + there["up"].shape[0])
    found: torch.Tensor = chosen.any(1).nonzero()[:, 0]
    return found


def _nothing(own: Mapping[str, Any]) -> torch.Tensor:
    """Zeros for a member's results, as wide as the widest number that goes into them."""
    hidden = own["hidden"]
    wide = torch.promote_types(hidden.dtype, own["weights"].dtype)
    result: torch.Tensor = hidden.new_zeros(hidden.shape[0], _width(own), dtype=wide)
    return result


def _width(own: Mapping[str, Any]) -> int:
    return int(own["down"].shape[2 if own["transposed"] else 1])

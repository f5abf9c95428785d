"""What communication operators compute, for all members of a group at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.rules.communication import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    BROADCAST,
    COMMUNICATION_OPERATORS,
    RECV,
    REDUCE_SCATTER,
    SEND,
    PlanOperator,
)
from parframe.rules.implementation import load_function
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.simulation.regions import evaluate_regions, put, take


@attrs.frozen
class CommunicationCall:
    """A device at a communication operator.

    Parameters
    ----------
    rank
        The device.
    operator
        The operator it has come to.
    tensor
        What it gives, if it gives something.
    shape
        The shape of what it expects, if it expects something.
    sizes
        The values of its symbols.
    args
        All arguments of an exchange, with its tensors; of others none.
    """

    rank: int
    operator: Operator
    tensor: torch.Tensor | None
    shape: tuple[int, ...] | None
    sizes: Mapping[str, int]
    args: Mapping[str, Any] = attrs.field(factory=dict)

    def regions(self, slot: str, member: int) -> Any:
        """The regions of a member in an argument, in numbers."""
        lists: Any = self.operator.args[slot]
        return evaluate_regions(lists[member], self.sizes)


Results = list["torch.Tensor | None"]


def run_communication(requests: Sequence[CommunicationCall]) -> Results:
    """What every member of a group gets.

    Parameters
    ----------
    requests
        One for each member, in the order of the group: the ranks a collective reduces in. For a
        transfer the one that sends and the one that receives, in the order of the group.

    Returns
    -------
    list of torch.Tensor or None
        For each request its result; members may share one tensor.

    Raises
    ------
    ParframeError
        Of kind ``run``, if what the members give does not fit together.
    """
    try:
        results = _compute(requests)
    except ParframeError as error:
        raise _at(requests[0], error.what) from error
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        reason = next(iter(str(error).splitlines()), "no reason")
        raise _at(requests[0], f"{requests[0].operator.target} failed: {reason}") from error
    for request, result in zip(requests, results, strict=True):
        if result is not None and tuple(result.shape) != request.shape:
            raise _at(
                request,
                f"gives a tensor of shape {list(result.shape)}, {list(request.shape or ())} is due",
            )
    return results


def _compute(calls: Sequence[CommunicationCall]) -> Results:
    target = calls[0].operator.target
    form = DISTRIBUTED_FORMS.get(target)
    if form is None:
        return _COLLECTIVES[COMMUNICATION_OPERATORS[target]](calls)
    simulate = load_function(form.simulate)
    return [*simulate([call.args for call in calls])]


def _all_reduce(requests: Sequence[CommunicationCall]) -> Results:
    total = _reduced(requests)
    return [total] * len(requests)


def _all_gather(requests: Sequence[CommunicationCall]) -> Results:
    results: Results = []
    seen: list[tuple[Any, torch.Tensor]] = []
    for request in requests:
        regions = [request.regions("parts", member) for member in range(len(requests))]
        known = next((whole for before, whole in seen if before == regions), None)
        if known is None or tuple(known.shape) != request.shape:
            known = _filled(request, regions, [_given(other) for other in requests])
            seen.append((regions, known))
        results.append(known)
    return results


def _reduce_scatter(requests: Sequence[CommunicationCall]) -> Results:
    total = _reduced(requests)
    return [take(total, request.regions("parts", m)) for m, request in enumerate(requests)]


def _all_to_all(requests: Sequence[CommunicationCall]) -> Results:
    members = range(len(requests))
    sent = [
        [take(_given(request), request.regions("sends", to)) for to in members]
        for request in requests
    ]
    return [
        _filled(request, [request.regions("parts", of) for of in members], [s[to] for s in sent])
        for to, request in enumerate(requests)
    ]


def _broadcast(requests: Sequence[CommunicationCall]) -> Results:
    root: Any = requests[0].operator.args["root"]
    value = _given(requests[root])
    return [value if request.operator.outputs else None for request in requests]


def _transfer(requests: Sequence[CommunicationCall]) -> Results:
    sender = next(r for r in requests if r.operator.target == SEND.target)
    return [None if request is sender else _given(sender) for request in requests]


_COLLECTIVES: Mapping[PlanOperator, Callable[[Sequence[CommunicationCall]], Results]] = {
    ALL_REDUCE: _all_reduce,
    ALL_GATHER: _all_gather,
    REDUCE_SCATTER: _reduce_scatter,
    ALL_TO_ALL: _all_to_all,
    BROADCAST: _broadcast,
    SEND: _transfer,
    RECV: _transfer,
}


def elements_sent(calls: Sequence[CommunicationCall], number: int) -> Mapping[str, int]:
    """Return how many elements a rank sends in a distributed form, by the argument they are of."""
    form = DISTRIBUTED_FORMS[calls[number].operator.target]
    ranks = [call.args for call in calls]
    if form.measure_sent is not None:
        measured: Mapping[str, int] = load_function(form.measure_sent)(ranks, number)
        return measured
    own = ranks[number].items()
    shapes = {slot: tuple(arg.shape) for slot, arg in own if isinstance(arg, torch.Tensor)}
    return form.count_sent(shapes, tuple(ranks[number]["travels"]), len(ranks))


_REDUCTIONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "sum": torch.add,
    "prod": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "any": torch.logical_or,
    "all": torch.logical_and,
}


def _reduced(requests: Sequence[CommunicationCall]) -> torch.Tensor:
    tensors = [_given(request) for request in requests]
    for request, tensor in zip(requests, tensors, strict=True):
        if tensor.shape != tensors[0].shape or tensor.dtype != tensors[0].dtype:
            raise _at(
                request,
                f"reduces a {tensor.dtype} of shape {list(tensor.shape)} with a "
                f"{tensors[0].dtype} of shape {list(tensors[0].shape)} of rank {requests[0].rank}",
            )
    return reduce(_REDUCTIONS[str(requests[0].operator.args["reduction"])], tensors)


def _filled(
    request: CommunicationCall, regions: Sequence[Any], pieces: Sequence[torch.Tensor]
) -> Any:
    """A tensor of pieces; what none of them fills cannot be taken for a number."""
    like = pieces[0]
    blank: float = torch.nan if like.is_floating_point() or like.is_complex() else 0
    if not blank and like.dtype != torch.bool:
        blank = torch.iinfo(like.dtype).max
    whole = torch.full(request.shape or (), blank, dtype=like.dtype, device=like.device)
    for region, piece in zip(regions, pieces, strict=True):
        put(whole, region, piece)
    return whole


def _given(request: CommunicationCall) -> torch.Tensor:
    if request.tensor is None:
        raise _at(request, "gives no tensor")
    return request.tensor


def _at(request: CommunicationCall, what: str) -> ParframeError:
    where = f"rank {request.rank}, {request.operator.name}"
    return ParframeError("run", where, what, "check the plan with parframe.check")

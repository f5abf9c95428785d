"""Communication operators and distributed forms, computed for all ranks of a group at once."""

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
    """One device at a communication operator that it has reached.

    ``shape`` is that of its result, ``sizes`` the values of its symbols; ``args`` are all arguments
    of a distributed form, with tensors, and empty for other operators.
    """

    rank: int
    operator: Operator
    tensor: torch.Tensor | None
    shape: tuple[int, ...] | None
    sizes: Mapping[str, int]
    args: Mapping[str, Any] = attrs.field(factory=dict)

    def regions(self, slot: str, number: int) -> Any:
        """Return the regions of a rank of the group in an argument, in numbers."""
        lists: Any = self.operator.args[slot]
        return evaluate_regions(lists[number], self.sizes)


Results = list["torch.Tensor | None"]


def run_communication(calls: Sequence[CommunicationCall]) -> Results:
    """Return the result of each rank of a group; ranks may share one tensor.

    There is a call for each rank, in the order of the group, in which a collective reduces; for a
    transfer, those of the sender and the receiver. An error of kind ``run`` reports inputs of the
    ranks that do not match.
    """
    try:
        results = _compute(calls)
    except ParframeError as error:
        raise _at(calls[0], error.what) from error
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        reason = next(iter(str(error).splitlines()), "no reason")
        raise _at(calls[0], f"{calls[0].operator.target} failed: {reason}") from error
    for call, result in zip(calls, results, strict=True):
        if result is not None and tuple(result.shape) != call.shape:
            raise _at(
                call,
                f"gives a tensor of shape {list(result.shape)}, {list(call.shape or ())} is due",
            )
    return results


def _compute(calls: Sequence[CommunicationCall]) -> Results:
    target = calls[0].operator.target
    form = DISTRIBUTED_FORMS.get(target)
    if form is None:
        return _COLLECTIVES[COMMUNICATION_OPERATORS[target]](calls)
    simulate = load_function(form.simulate)
    return [*simulate([call.args for call in calls])]


def _all_reduce(calls: Sequence[CommunicationCall]) -> Results:
    total = _reduced(calls)
    return [total] * len(calls)


def _all_gather(calls: Sequence[CommunicationCall]) -> Results:
    results: Results = []
    seen: list[tuple[Any, torch.Tensor]] = []
    for call in calls:
        regions = [call.regions("parts", number) for number in range(len(calls))]
        known = next((whole for before, whole in seen if before == regions), None)
        if known is None or tuple(known.shape) != call.shape:
            known = _filled(call, regions, [_given(other) for other in calls])
            seen.append((regions, known))
        results.append(known)
    return results


def _reduce_scatter(calls: Sequence[CommunicationCall]) -> Results:
    total = _reduced(calls)
    return [take(total, call.regions("parts", m)) for m, call in enumerate(calls)]


def _all_to_all(calls: Sequence[CommunicationCall]) -> Results:
    ranks = range(len(calls))
    sent = [[take(_given(call), call.regions("sends", to)) for to in ranks] for call in calls]
    return [
        _filled(call, [call.regions("parts", of) for of in ranks], [s[to] for s in sent])
        for to, call in enumerate(calls)
    ]


def _broadcast(calls: Sequence[CommunicationCall]) -> Results:
    root: Any = calls[0].operator.args["root"]
    value = _given(calls[root])
    return [value if call.operator.outputs else None for call in calls]


def _transfer(calls: Sequence[CommunicationCall]) -> Results:
    sender = next(r for r in calls if r.operator.target == SEND.target)
    return [None if call is sender else _given(sender) for call in calls]


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


def _reduced(calls: Sequence[CommunicationCall]) -> torch.Tensor:
    tensors = [_given(call) for call in calls]
    for call, tensor in zip(calls, tensors, strict=True):
        if tensor.shape != tensors[0].shape or tensor.dtype != tensors[0].dtype:
            raise _at(
                call,
                f"reduces a {tensor.dtype} of shape {list(tensor.shape)} with a "
                f"{tensors[0].dtype} of shape {list(tensors[0].shape)} of rank {calls[0].rank}",
            )
    return reduce(_REDUCTIONS[str(calls[0].operator.args["reduction"])], tensors)


def _filled(call: CommunicationCall, regions: Sequence[Any], pieces: Sequence[torch.Tensor]) -> Any:
    """Return a tensor of pieces; elements that no piece fills are NaN or the largest integer."""
    like = pieces[0]
    blank: float = torch.nan if like.is_floating_point() or like.is_complex() else 0
    if not blank and like.dtype != torch.bool:
        blank = torch.iinfo(like.dtype).max
    whole = torch.full(call.shape or (), blank, dtype=like.dtype, device=like.device)
    for region, piece in zip(regions, pieces, strict=True):
        put(whole, region, piece)
    return whole


def _given(call: CommunicationCall) -> torch.Tensor:
    if call.tensor is None:
        raise _at(call, "gives no tensor")
    return call.tensor


def _at(call: CommunicationCall, what: str) -> ParframeError:
    where = f"rank {call.rank}, {call.operator.name}"
    return ParframeError("run", where, what, "check the plan with parframe.check")

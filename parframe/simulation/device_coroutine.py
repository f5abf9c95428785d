"""One device as a coroutine that runs its program and yields at communication operators."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import Operator, Tensor
from parframe.plan import Device, Program, communicates
from parframe.rules.communication import SHARD
from parframe.rules.table import DISTRIBUTED_FORMS
from parframe.simulation.collectives import CommunicationCall
from parframe.simulation.interpreter import execute, resolve_arguments
from parframe.simulation.regions import evaluate_regions, take
from parframe.sizes import evaluate

ValueObserver = Callable[[int, Operator, str, torch.Tensor], None]
"""Callback for a value: gets the rank, the operator that computed it, its name, the tensor."""

LastUses = tuple[tuple[str, ...], ...]
"""For each operator of a program, the values that are unused after it."""

DeviceCoroutine = Generator[CommunicationCall, "torch.Tensor | None", dict[str, torch.Tensor]]
"""Yields communication calls, receives their results, returns the device's output values."""


def find_last_uses(operators: Sequence[Operator], kept: Iterable[str]) -> LastUses:
    """Find the values that each operator is the last to use, except those that are kept."""
    seen = set(kept)
    last_uses = []
    for operator in reversed(operators):
        names = [n for n in dict.fromkeys((*operator.inputs, *operator.outputs)) if n not in seen]
        seen.update(names)
        last_uses.append(tuple(names))
    return tuple(reversed(last_uses))


def evaluate_sizes(device: Device, sizes: Mapping[str, int]) -> dict[str, int]:
    """Evaluate all symbols of a device's program from the values of the model's symbols."""
    values = dict(sizes)
    try:
        values.update((name, evaluate(size, sizes)) for name, size in device.bindings.items())
    except KeyError as error:
        raise ParframeError(
            "run",
            f"rank {device.rank}",
            f"its sizes depend on {error.args[0]!r}, which no input defines",
            "partition the model again",
        ) from error
    return values


def run_device(
    rank: int,
    program: Program,
    last_uses: LastUses,
    values: dict[str, torch.Tensor],
    sizes: Mapping[str, int],
    dtype: torch.dtype | None,
    device: torch.device,
    observe: ValueObserver | None = None,
) -> DeviceCoroutine:
    """Run the program of a device on its inputs and parameters.

    Values are deleted from ``values`` after their last use. The observer is called with every
    result.
    """
    for operator, unused in zip(program.operators, last_uses, strict=True):
        try:
            if communicates(operator):
                received = yield _make_call(rank, operator, values, program.tensors, sizes)
                results: tuple[Any, ...] = () if received is None else (received,)
            elif operator.target == SHARD.target:
                part: Any = operator.args["part"]
                results = (take(values[operator.inputs[0]], evaluate_regions(part, sizes)),)
            else:
                results = execute(operator, values, sizes, dtype, device)
        except ParframeError as error:
            raise _locate_error(rank, operator, error) from error
        except KeyError as error:
            raise ParframeError(
                "run",
                f"rank {rank}, {operator.name}",
                f"value {error.args[0]!r} does not exist",
                "check the plan with parframe.check",
            ) from error
        for name, value in zip(operator.outputs, results, strict=True):
            values[name] = value
            if observe is not None:
                observe(rank, operator, name, value)
        for name in unused:
            del values[name]
    return {part.name: values[part.name] for part in program.outputs}


def _make_call(
    rank: int,
    operator: Operator,
    values: Mapping[str, torch.Tensor],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
) -> CommunicationCall:
    shape = None
    if operator.outputs:
        declared = tensors[operator.outputs[0]].shape
        shape = tuple(evaluate(size, sizes) for size in declared)
    tensor = values[operator.inputs[0]] if operator.inputs else None
    args = (
        resolve_arguments(operator, values, sizes) if operator.target in DISTRIBUTED_FORMS else {}
    )
    return CommunicationCall(rank, operator, tensor, shape, sizes, args)


def _locate_error(rank: int, operator: Operator, error: ParframeError) -> ParframeError:
    """Return an error with the rank, and the operator if it has no better place."""
    located = error.where.startswith("rank ")
    place = operator.name if error.where == "region" else error.where
    where = error.where if located else f"rank {rank}, {place}"
    return ParframeError(error.kind, where, error.what, error.hint)

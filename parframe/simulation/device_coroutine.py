"""One device as a coroutine over its program: it stops at every communication operator."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import Operator, Tensor
from parframe.plan import COMMUNICATION, Device, Program
from parframe.rules.table import EXCHANGES
from parframe.simulation.collectives import Request
from parframe.simulation.interpreter import arguments, execute
from parframe.simulation.regions import numbers, take
from parframe.sizes import evaluate

Watch = Callable[[int, Operator, str, torch.Tensor], None]
"""Is told of every value: the rank, the operator that gave it, its name, the value."""

Worker = Generator[Request, "torch.Tensor | None", dict[str, torch.Tensor]]
"""Yields what it asks of its group, takes what it gets, returns its values that are outputs."""


@attrs.frozen
class Script:
    """A program made ready to be followed: which values each operator is the last to use."""

    program: Program

    @cached_property
    def last(self) -> tuple[tuple[str, ...], ...]:
        """For each operator the values that nothing needs after it."""
        return last_uses(self.program.operators, {part.name for part in self.program.outputs})


def last_uses(operators: Sequence[Operator], kept: set[str]) -> tuple[tuple[str, ...], ...]:
    """For each operator the values that are not needed after it, those kept left out."""
    seen = set(kept)
    found = []
    for operator in reversed(operators):
        own = [n for n in dict.fromkeys((*operator.inputs, *operator.outputs)) if n not in seen]
        seen.update(own)
        found.append(tuple(own))
    return tuple(reversed(found))


def device_sizes(device: Device, sizes: Mapping[str, int]) -> dict[str, int]:
    """The values of all symbols of a device's program, from those of the model's.

    Raises
    ------
    ParframeError
        Of kind ``run``, if a binding depends on a symbol that has no value.
    """
    found = dict(sizes)
    try:
        found.update((name, evaluate(size, sizes)) for name, size in device.bindings.items())
    except KeyError as error:
        raise ParframeError(
            "run",
            f"rank {device.rank}",
            f"its sizes depend on {error.args[0]!r}, which no input gives",
            "partition the model again",
        ) from error
    return found


def work(
    rank: int,
    script: Script,
    values: dict[str, torch.Tensor],
    sizes: Mapping[str, int],
    dtype: torch.dtype | None,
    device: torch.device,
    watch: Watch | None = None,
) -> Worker:
    """Follow a program.

    Parameters
    ----------
    rank
        The device.
    script
        Its program.
    values
        Its inputs and parameters; emptied of what is no longer needed.
    sizes
        The values of its symbols.
    dtype, device
        As for ``execute``.
    watch
        Told of every value.
    """
    tensors = script.program.tensors
    for operator, last in zip(script.program.operators, script.last, strict=True):
        try:
            if operator.target in COMMUNICATION:
                answer = yield _request(rank, operator, values, tensors, sizes)
                results: tuple[Any, ...] = () if answer is None else (answer,)
            elif operator.target == "parframe.shard":
                part: Any = operator.args["part"]
                results = (take(values[operator.inputs[0]], numbers(part, sizes)),)
            else:
                results = execute(operator, values, sizes, dtype, device)
        except ParframeError as error:
            raise _on(rank, operator, error) from error
        except KeyError as error:
            raise ParframeError(
                "run",
                f"rank {rank}, {operator.name}",
                f"there is no {error.args[0]!r}",
                "check the plan with parframe.check",
            ) from error
        for name, value in zip(operator.outputs, results, strict=True):
            values[name] = value
            if watch is not None:
                watch(rank, operator, name, value)
        for name in last:
            del values[name]
    return {part.name: values[part.name] for part in script.program.outputs}


def _request(
    rank: int,
    operator: Operator,
    values: Mapping[str, torch.Tensor],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
) -> Request:
    shape = None
    if operator.outputs:
        declared = tensors[operator.outputs[0]].shape
        shape = tuple(evaluate(size, sizes) for size in declared)
    given = values[operator.inputs[0]] if operator.inputs else None
    args = arguments(operator, values, sizes) if operator.target in EXCHANGES else {}
    return Request(rank, operator, given, shape, sizes, args)


def _on(rank: int, operator: Operator, error: ParframeError) -> ParframeError:
    known = error.where.startswith("rank ")
    place = operator.name if error.where == "region" else error.where
    where = error.where if known else f"rank {rank}, {place}"
    return ParframeError(error.kind, where, error.what, error.hint)

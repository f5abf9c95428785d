"""All devices of a plan in one process: each a coroutine, matched where they communicate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch

from parframe.plan import Plan
from parframe.simulation.collectives import Request, exchange
from parframe.simulation.communication_matching import Meetings
from parframe.simulation.device_coroutine import Script, Watch, Worker, device_sizes, work
from parframe.simulation.inputs import dtype_of, held, input_tensors, own_dtype
from parframe.simulation.interpreter import input_sizes
from parframe.simulation.outputs import Piece, assembled, structured
from parframe.simulation.regions import numbers
from parframe.simulation.threads import fitting_threads
from parframe.weights import read_state_dict

Record = Callable[[Sequence[Request]], None]
"""Is told of every communication: all who took part, in the order of their group."""


def simulate(
    plan: Plan,
    inputs: Mapping[str, Any],
    weights: Any = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Any:
    """Run all devices of a plan in this process.

    Parameters
    ----------
    plan
        The plan.
    inputs
        Tensors by the names of the model's arguments.
    weights
        A folder, a state dict, a module, or None for random ones.
    dtype
        What to compute in, such as ``"float64"``, and no narrower anywhere. If None, the dtypes
        are those of the weights, and casts that the model's code names are done.
    device
        The torch device that stands for all of the plan's.
    seed
        Of random weights.

    Returns
    -------
    Any
        What the unpartitioned model returns: a tensor, a tuple or dict of them, or `Outputs`.

    Raises
    ------
    ParframeError
        Of kind ``input`` or ``weights``, if these do not fit the model; of kind ``run``, if an
        operator fails, communications do not fit together, or devices wait for each other.

    Examples
    --------
    >>> logits = simulate(plan, {"input_ids": ids}).logits  # doctest: +SKIP
    """
    kind, place = dtype_of(dtype), torch.device(device)
    state = read_state_dict(plan.graph, weights, kind, seed)
    given = Given(
        inputs=input_tensors(plan.graph, inputs, kind or own_dtype(plan.graph, state), place),
        state={name: tensor.to(place) for name, tensor in state.items()},
        dtype=kind,
        device=place,
    )
    sizes = input_sizes(plan.graph, given.inputs)
    with fitting_threads(given.state):
        found = pieces(plan, given)
    return structured(plan.graph.outputs, assembled(plan.graph, found, sizes))


@attrs.frozen
class Given:
    """What a run works on: the whole inputs and weights, by the model's names."""

    inputs: Mapping[str, torch.Tensor]
    state: Mapping[str, torch.Tensor]
    dtype: torch.dtype | None
    device: torch.device


def pieces(
    plan: Plan, given: Given, watch: Watch | None = None, record: Record | None = None
) -> list[Piece]:
    """Run all devices and collect every device's parts of the outputs.

    Parameters
    ----------
    plan
        The plan.
    given
        Inputs and weights.
    watch
        Told of every value on every device.
    record
        Told of every communication.
    """
    symbols = input_sizes(plan.graph, given.inputs)
    sizes = [device_sizes(device, symbols) for device in plan.devices]
    scripts = {name: Script(program) for name, program in plan.programs.items()}
    workers = [
        work(
            device.rank,
            scripts[device.program],
            held(plan.programs[device.program], given.inputs, given.state, sizes[device.rank]),
            sizes[device.rank],
            given.dtype,
            given.device,
            watch,
        )
        for device in plan.devices
    ]
    with torch.no_grad():
        results = _run_all(workers, Meetings(plan.mesh), record)
    return [
        Piece(rank, part.whole, numbers(part.region, sizes[rank]), results[rank][part.name])
        for rank in range(len(workers))
        for part in plan.program(rank).outputs
    ]


def _run_all(
    workers: Sequence[Worker], meetings: Meetings, record: Record | None
) -> dict[int, dict[str, torch.Tensor]]:
    """Resume whoever can go on until nobody can; the results by rank."""
    results: dict[int, dict[str, torch.Tensor]] = {}
    ready: deque[tuple[int, torch.Tensor | None]] = deque((r, None) for r in range(len(workers)))
    while ready:
        rank, answer = ready.popleft()
        try:
            request = workers[rank].send(answer)
        except StopIteration as finished:
            results[rank] = finished.value
            continue
        members = meetings.join(request)
        if members is not None:
            if record is not None:
                record(members)
            answers = exchange(members)
            ready.extend((m.rank, own) for m, own in zip(members, answers, strict=True))
    meetings.check_done()
    return results

"""Simulation of a plan: all devices in one process, as coroutines matched at collectives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch

from parframe.plan import Plan
from parframe.simulation.collectives import CommunicationCall, run_communication
from parframe.simulation.communication_matching import CommunicationMatcher
from parframe.simulation.device_coroutine import (
    DeviceCoroutine,
    ValueObserver,
    evaluate_sizes,
    find_last_uses,
    run_device,
)
from parframe.simulation.dtypes import find_weights_dtype, parse_dtype
from parframe.simulation.graph_inputs import convert_inputs, find_sizes, take_parts
from parframe.simulation.outputs import OutputPart, assemble_outputs, restore_structure
from parframe.simulation.regions import evaluate_regions
from parframe.simulation.threads import limit_threads
from parframe.weights import read_state_dict

CommunicationObserver = Callable[[Sequence[CommunicationCall]], None]
"""Callback for a communication: gets the calls of all ranks of a group, in its order."""


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
        Narrowest floating-point dtype of any result, such as ``"float64"``. If None, the dtypes
        are those of the weights, and the casts in the model's code are executed.
    device
        Torch device on which all of the plan's devices are simulated.
    seed
        Seed of random weights.

    Returns
    -------
    Any
        Outputs in the structure that the unpartitioned model returns: a tensor, a tuple or dict
        of tensors, or `Outputs`.

    Raises
    ------
    ParframeError
        Of kind ``input`` or ``weights``, if these do not fit the model; of kind ``run``, if an
        operator fails, communication calls do not match, or devices deadlock.

    Examples
    --------
    >>> logits = simulate(plan, {"input_ids": ids}).logits  # doctest: +SKIP
    """
    kind, place = parse_dtype(dtype), torch.device(device)
    state = read_state_dict(plan.graph, weights, kind, seed)
    given = RunInputs(
        inputs=convert_inputs(
            plan.graph, inputs, kind or find_weights_dtype(plan.graph, state), place
        ),
        state={name: tensor.to(place) for name, tensor in state.items()},
        dtype=kind,
        device=place,
    )
    sizes = find_sizes(plan.graph, given.inputs)
    with limit_threads(given.state):
        parts = run_devices(plan, given)
    return restore_structure(plan.graph.outputs, assemble_outputs(plan.graph, parts, sizes))


@attrs.frozen
class RunInputs:
    """Whole inputs and weights of a run, by the model's names.

    No floating-point result is narrower than ``dtype``; None leaves the dtypes of the weights.
    """

    inputs: Mapping[str, torch.Tensor]
    state: Mapping[str, torch.Tensor]
    dtype: torch.dtype | None
    device: torch.device


def run_devices(
    plan: Plan,
    given: RunInputs,
    observe_value: ValueObserver | None = None,
    observe_communication: CommunicationObserver | None = None,
) -> list[OutputPart]:
    """Run all devices and return every device's parts of the outputs, in the order of ranks.

    The observers are called with every value, and with every collective and transfer.
    """
    symbols = find_sizes(plan.graph, given.inputs)
    sizes = [evaluate_sizes(device, symbols) for device in plan.devices]
    last_uses = {
        name: find_last_uses(program.operators, [part.name for part in program.outputs])
        for name, program in plan.programs.items()
    }
    coroutines = []
    for device in plan.devices:
        rank, program = device.rank, plan.programs[device.program]
        values = take_parts(program, given.inputs, given.state, sizes[rank])
        unused = last_uses[device.program]
        coroutines.append(
            run_device(
                rank, program, unused, values, sizes[rank], given.dtype, given.device, observe_value
            )
        )
    matcher = CommunicationMatcher(plan.mesh)
    with torch.no_grad():
        results = _run_until_done(coroutines, matcher, observe_communication)
    return [
        OutputPart(
            rank, part.whole, evaluate_regions(part.region, sizes[rank]), results[rank][part.name]
        )
        for rank in range(len(coroutines))
        for part in plan.program(rank).outputs
    ]


def _run_until_done(
    coroutines: Sequence[DeviceCoroutine],
    matcher: CommunicationMatcher,
    observe: CommunicationObserver | None,
) -> dict[int, dict[str, torch.Tensor]]:
    """Resume devices until all have returned, and return their output values by rank.

    A device that yields a communication call is resumed once its whole group has arrived.
    """
    results: dict[int, dict[str, torch.Tensor]] = {}
    ready: deque[tuple[int, torch.Tensor | None]] = deque((r, None) for r in range(len(coroutines)))
    while ready:
        rank, received = ready.popleft()
        try:
            call = coroutines[rank].send(received)
        except StopIteration as finished:
            results[rank] = finished.value
            continue
        calls = matcher.add(call)
        if calls is not None:
            if observe is not None:
                observe(calls)
            outcomes = run_communication(calls)
            ready.extend((c.rank, result) for c, result in zip(calls, outcomes, strict=True))
    matcher.check_complete()
    return results

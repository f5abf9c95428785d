"""Verification of a plan: every device's outputs against those of the unpartitioned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.plan import Plan
from parframe.simulation.dtypes import parse_dtype
from parframe.simulation.first_difference import find_first_difference
from parframe.simulation.graph_inputs import convert_inputs, find_sizes
from parframe.simulation.numerical_error import find_scale, relative_error
from parframe.simulation.outputs import OutputPart, assemble_outputs
from parframe.simulation.proof import Difference, OutputComparison, Proof
from parframe.simulation.reference import run_reference
from parframe.simulation.regions import take
from parframe.simulation.simulate import RunInputs, run_devices
from parframe.simulation.threads import limit_threads
from parframe.simulation.traffic import TrafficRecorder
from parframe.simulation.trial_inputs import choose_trial_sizes, make_trial_inputs
from parframe.weights import read_state_dict

BOUNDS: Mapping[str, float] = {"float64": 1e-11, "float32": 1e-5}
"""Largest allowed difference, relative to the largest number of an output, by dtype."""


def verify(
    plan: Plan,
    weights: Any = None,
    inputs: Mapping[str, Any] | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    seed: int = 0,
    dtype: str = "float64",
) -> Proof:
    """Run all devices of a plan and compare their outputs with the unpartitioned model's.

    Parameters
    ----------
    plan
        The plan.
    weights
        A folder, a state dict, a module, or None for random ones.
    inputs
        Tensors by the names of the model's arguments; random ones if None.
    batch, sequence
        Sizes of random inputs. By default they are chosen such that devices have parts of
        different sizes, and a second trial has fewer rows than the batch has parts.
    seed
        Seed of random weights and inputs.
    dtype
        ``"float64"``, where only a fault exceeds the bound, or ``"float32"``.

    Returns
    -------
    Proof
        The verdict, with the first operator that differs.

    Raises
    ------
    ParframeError
        Of kind ``input`` or ``weights``, if these do not fit the model; of kind ``run``, if the
        devices cannot be run at all.
    """
    if dtype not in BOUNDS:
        raise ParframeError(
            "input", "dtype", f"{dtype!r} has no bound", f"use one of {', '.join(BOUNDS)}"
        )
    torch_dtype, device = parse_dtype(dtype), torch.device("cpu")
    state = read_state_dict(plan.graph, weights, torch_dtype, seed)
    if inputs is not None:
        trials = [inputs]
    else:
        sizes = choose_trial_sizes(plan, batch, sequence)
        trials = [make_trial_inputs(plan.graph, trial, seed) for trial in sizes]
    converted = [
        RunInputs(
            convert_inputs(plan.graph, trial, torch_dtype, device), state, torch_dtype, device
        )
        for trial in trials
    ]
    with limit_threads(state):
        return _run_trials(plan, converted, dtype)


def _run_trials(plan: Plan, trials: Sequence[RunInputs], dtype: str) -> Proof:
    comparisons: list[OutputComparison] = []
    difference: Difference | None = None
    recorder, bound = TrafficRecorder(plan), BOUNDS[dtype]
    for number, given in enumerate(trials):
        outputs = _compare_outputs(plan, given, None if number else recorder)
        comparisons += outputs
        if difference is None and any(output.max_error > bound for output in outputs):
            difference = find_first_difference(plan, given, bound)
    max_error = max((output.max_error for output in comparisons), default=0.0)
    return Proof(
        ok=max_error <= bound,
        max_error=max_error,
        bound=bound,
        dtype=dtype,
        first_difference=difference,
        outputs=tuple(comparisons),
        communication=recorder.rows(),
    )


def _compare_outputs(
    plan: Plan, given: RunInputs, recorder: TrafficRecorder | None
) -> list[OutputComparison]:
    """Run one trial and compare every output."""
    expected = run_reference(plan.graph, given.inputs, given.state, given.dtype)
    parts = run_devices(plan, given, observe_communication=recorder)
    sizes = find_sizes(plan.graph, given.inputs)
    assemble_outputs(plan.graph, parts, sizes)  # raises where the parts do not cover an output
    return [
        _compare_output(name, expected[name], [p for p in parts if p.whole == name], sizes)
        for name in dict.fromkeys(plan.graph.output_names)
    ]


def _compare_output(
    name: str, expected: torch.Tensor, parts: list[OutputPart], sizes: Mapping[str, int]
) -> OutputComparison:
    scale = find_scale(expected)
    errors = (relative_error(part.tensor, take(expected, part.region), scale) for part in parts)
    return OutputComparison(
        name=name,
        shape=tuple(expected.shape),
        dtype=str(expected.dtype).removeprefix("torch."),
        sizes=dict(sizes),
        parts=len(parts),
        max_error=max(errors, default=0.0),
    )

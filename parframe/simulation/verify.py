"""The proof of a plan: every device's outputs against those of the unpartitioned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.plan import COMMUNICATION, Plan, Program
from parframe.rules.table import EXCHANGES
from parframe.simulation.device_coroutine import device_sizes
from parframe.simulation.inputs import dtype_of, input_tensors
from parframe.simulation.interpreter import input_sizes
from parframe.simulation.numerical_error import error, scale_of
from parframe.simulation.outputs import Piece, assembled
from parframe.simulation.reference import reference
from parframe.simulation.regions import numbers, take
from parframe.simulation.simulate import Given, pieces
from parframe.simulation.threads import fitting_threads
from parframe.simulation.traffic import Recorder, Traffic
from parframe.simulation.trial_inputs import trial_inputs, trial_sizes
from parframe.weights import read_state_dict

BOUNDS: Mapping[str, float] = {"float64": 1e-11, "float32": 1e-5}
"""How far outputs may be apart, relative to the largest of them, by what is computed in."""


@attrs.frozen
class Difference:
    """The first operator, in the model's order, whose result is not the model's.

    Parameters
    ----------
    operator
        Its name in the devices' programs.
    module, source
        The module path and the line of the model's code it comes from.
    ranks
        The devices on which it differs.
    error
        The largest relative difference.
    """

    operator: str
    module: str
    source: str
    ranks: tuple[int, ...]
    error: float


@attrs.frozen
class Compared:
    """One output of one trial: how many parts of devices were compared, and how they agree."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sizes: Mapping[str, int]
    parts: int
    max_error: float


@attrs.frozen
class Proof:
    """Whether a plan computes what its model computes.

    Parameters
    ----------
    ok
        Whether every part of every output on every device is within the bound.
    max_error
        The largest difference, relative to the largest number of the output.
    bound
        How large it may be.
    dtype
        What was computed in.
    first_difference
        Where they part, if they do.
    outputs
        Every output of every trial.
    communication
        What the first trial communicated, by mesh axis.
    """

    ok: bool
    max_error: float
    bound: float
    dtype: str
    first_difference: Difference | None
    outputs: tuple[Compared, ...]
    communication: tuple[Traffic, ...]


def verify(
    plan: Plan,
    weights: Any = None,
    inputs: Mapping[str, Any] | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    seed: int = 0,
    dtype: str = "float64",
) -> Proof:
    """Run all devices of a plan and compare what each of them gives with the unpartitioned model.

    Parameters
    ----------
    plan
        The plan.
    weights
        A folder, a state dict, a module, or None for random ones.
    inputs
        Tensors by the names of the model's arguments; random ones, if None.
    batch, sequence
        Sizes of random inputs. Without them they are chosen such that devices hold parts of
        different sizes, and a second trial has fewer rows than the batch has parts.
    seed
        Of random weights and inputs.
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
    kind, place = dtype_of(dtype), torch.device("cpu")
    state = read_state_dict(plan.graph, weights, kind, seed)
    trials = (
        [inputs]
        if inputs is not None
        else [trial_inputs(plan.graph, sizes, seed) for sizes in trial_sizes(plan, batch, sequence)]
    )
    givens = [
        Given(input_tensors(plan.graph, trial, kind, place), state, kind, place) for trial in trials
    ]
    with fitting_threads(state):
        return _proof(plan, givens, dtype)


def _proof(plan: Plan, trials: Sequence[Given], dtype: str) -> Proof:
    rows: list[Compared] = []
    difference: Difference | None = None
    recorder, bound = Recorder(plan), BOUNDS[dtype]
    for number, given in enumerate(trials):
        found = _compared(plan, given, None if number else recorder)
        rows += found
        if difference is None and any(row.max_error > bound for row in found):
            difference = first_difference(plan, given, bound)
    largest = max((row.max_error for row in rows), default=0.0)
    return Proof(
        ok=largest <= bound,
        max_error=largest,
        bound=bound,
        dtype=dtype,
        first_difference=difference,
        outputs=tuple(rows),
        communication=recorder.rows(),
    )


def first_difference(plan: Plan, given: Given, bound: float) -> Difference | None:
    """Run a plan once more and find the first operator whose result is not the model's.

    Values are compared where it is known what they should be: by the program's layouts, or
    where a value has the name and the shape of the model's and cannot be a partial one.

    Parameters
    ----------
    plan
        The plan.
    given
        Inputs and weights.
    bound
        How far results may be apart, relative to the largest number of the whole.

    Returns
    -------
    Difference or None
        None, if all that can be compared is within the bound.
    """
    comparer = _Comparer(plan, given, bound)
    pieces(plan, given, watch=comparer)
    return comparer.first()


def _compared(plan: Plan, given: Given, recorder: Recorder | None) -> list[Compared]:
    """Every output of one trial."""
    expected = reference(plan.graph, given.inputs, given.state, given.dtype)
    parts = pieces(plan, given, record=recorder)
    sizes = input_sizes(plan.graph, given.inputs)
    assembled(plan.graph, parts, sizes)
    return [
        _compared_output(name, expected[name], [p for p in parts if p.whole == name], sizes)
        for name in dict.fromkeys(plan.graph.output_names)
    ]


def _compared_output(
    name: str, expected: torch.Tensor, parts: list[Piece], sizes: Mapping[str, int]
) -> Compared:
    scale = scale_of(expected)
    errors = (error(part.tensor, take(expected, part.region), scale) for part in parts)
    return Compared(
        name=name,
        shape=tuple(expected.shape),
        dtype=str(expected.dtype).removeprefix("torch."),
        sizes=dict(sizes),
        parts=len(parts),
        max_error=max(errors, default=0.0),
    )


class _Comparer:
    """Is told of every device's values, and compares them with the model's."""

    def __init__(self, plan: Plan, given: Given, bound: float) -> None:
        self.plan = plan
        self.bound = bound
        self.expected: dict[str, torch.Tensor] = {**given.inputs, **given.state}
        self.scales: dict[str, float] = {}
        reference(plan.graph, given.inputs, given.state, given.dtype, watch=self._keep)
        self.order = {name: i for i, name in enumerate(self.expected)}
        symbols = input_sizes(plan.graph, given.inputs)
        self.sizes = [device_sizes(device, symbols) for device in plan.devices]
        self.open = {name: _may_be_partial(p) for name, p in plan.programs.items()}
        self.found: dict[tuple[str, str], tuple[Operator, dict[int, float]]] = {}

    def __call__(self, rank: int, operator: Operator, name: str, value: torch.Tensor) -> None:
        """Compare a device's value."""
        expected = self._expected(rank, name, value)
        if expected is None:
            return
        whole, part = expected
        if whole not in self.scales:
            self.scales[whole] = scale_of(self.expected[whole])
        apart = error(value, part, self.scales[whole])
        if apart > self.bound:
            ranks = self.found.setdefault((whole, operator.name), (operator, {}))[1]
            ranks[rank] = apart

    def first(self) -> Difference | None:
        """The first operator in the model's order that differs; of one value, the first run."""
        if not self.found:
            return None
        operator, ranks = self.found[min(self.found, key=lambda key: self.order[key[0]])]
        return Difference(
            operator=operator.name,
            module=operator.module,
            source=operator.source,
            ranks=tuple(sorted(ranks)),
            error=max(ranks.values()),
        )

    def _keep(self, operator: Operator, name: str, value: torch.Tensor) -> None:
        self.expected[name] = value

    def _expected(
        self, rank: int, name: str, value: torch.Tensor
    ) -> tuple[str, torch.Tensor] | None:
        """The name of the whole, and the part of it that a device's value should be."""
        program = self.plan.program(rank)
        layout = program.layouts.get(name)
        if layout is not None:
            if layout.partial or layout.whole not in self.expected:
                return None
            regions = numbers(layout.region, self.sizes[rank])
            return layout.whole, take(self.expected[layout.whole], regions)
        if program.layouts or name in self.open[program.name]:
            return None
        name = name.partition("@")[0]
        whole = self.expected.get(name)
        if whole is None or whole.shape != value.shape:
            return None
        return name, whole


def _may_be_partial(program: Program) -> frozenset[str]:
    """The values from which something is made that is then reduced over devices."""
    found: set[str] = set()
    for operator in reversed(program.operators):
        reduces = "reduction" in operator.args
        passes = operator.target not in COMMUNICATION - EXCHANGES.keys()
        if reduces or (passes and found & {*operator.outputs}):
            found.update(operator.inputs)
    return frozenset(found)

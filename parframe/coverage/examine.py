"""One type of model: made small, loaded, compared with transformers, partitioned and proved."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator

import attrs

import parframe
from parframe.coverage.model import NotRunnableError, Sample, sample
from parframe.coverage.outcome import Outcome, Verdict
from parframe.dims import name_dimensions
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.simulation.numerical_error import find_scale, relative_error
from parframe.simulation.reference import run_graph
from parframe.simulation.verify import BOUNDS
from parframe.weights import read_state_dict

_LONGEST = 240


def examine(model_type: str, composites: Iterable[str]) -> Iterator[Outcome]:
    """Find out about a type of model, telling after each step what is known by then.

    Parameters
    ----------
    model_type
        The type.
    composites
        What to partition it with.
    """
    try:
        small = sample(model_type)
    except NotRunnableError as reason:
        yield Outcome(model_type, Verdict("not counted", str(reason)), finished=True)
        return
    loaded: list[OperatorGraph] = []

    def load() -> Verdict:
        loaded.append(parframe.load(small.config))
        return _compared(loaded[0], small)

    outcome = Outcome(model_type, _told(load))
    if not outcome.loaded:
        yield attrs.evolve(outcome, finished=True)
        return
    yield outcome
    graph = loaded[0]
    has_experts = "experts" in name_dimensions(graph).chains
    for composite in composites:
        if has_experts or "EP" not in composite:
            verdict = _told(lambda composite=composite: _planned(graph, composite))  # type: ignore[misc]
            outcome = attrs.evolve(outcome, plans={**outcome.plans, composite: verdict})
            yield outcome
    yield attrs.evolve(outcome, finished=True)


def _compared(graph: OperatorGraph, small: Sample) -> Verdict:
    """Whether the graph computes what transformers computes."""
    weights = read_state_dict(graph, small.model, small.answers[0].dtype)
    for prompt, expected in zip(small.prompts, small.answers, strict=True):
        found = run_graph(graph, {"input_ids": prompt}, weights, expected.dtype)["logits"]
        apart = relative_error(found, expected, find_scale(expected))
        if apart > BOUNDS["float64"]:
            sizes = " x ".join(str(size) for size in prompt.shape)
            return Verdict("wrong", f"logits are off by {apart:.3g} at {sizes}")
    return Verdict("loaded")


def _planned(graph: OperatorGraph, composite: str) -> Verdict:
    """Whether a composite's plan is proved."""
    plan = parframe.partition(graph, composite)
    report = parframe.check(plan)
    if not report.ok:
        return Verdict("wrong", _short(f"the plan fails its checks: {report.findings[0]}"))
    proof = parframe.verify(plan)
    if not proof.ok:
        place = proof.first_difference.operator if proof.first_difference else "its outputs"
        return Verdict("wrong", f"off by {proof.max_error:.3g}, first at {place}")
    return Verdict("proved")


def _told(step: Callable[[], Verdict]) -> Verdict:
    """A step's verdict, or its error as one."""
    try:
        return step()
    except ParframeError as fault:
        if fault.kind == "internal":
            return Verdict("traceback", _short(fault.what))
        return Verdict("refused", _short(f"{fault.kind}: {fault.where}: {fault.what}"))
    except MemoryError:
        return Verdict("unfinished", "out of memory")
    except Exception as fault:  # noqa: BLE001  # the defect is told, whatever it is
        if "can't allocate memory" in str(fault):
            return Verdict("unfinished", "out of memory")
        last = traceback.extract_tb(fault.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"
        return Verdict("traceback", _short(f"{place}: {type(fault).__name__}: {fault}"))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."

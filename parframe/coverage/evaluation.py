"""Evaluation of one model type: a small model is loaded, compared, partitioned and verified."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator

import attrs

import parframe
from parframe.coverage.outcome import Outcome, Verdict
from parframe.coverage.reference_model import NotRunnableError, ReferenceModel, build_reference
from parframe.dims import name_dimensions
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.simulation.numerical_error import find_scale, relative_error
from parframe.simulation.reference import run_graph
from parframe.simulation.verify import BOUNDS
from parframe.weights import read_state_dict

_LONGEST = 240


def evaluate(model_type: str, composites: Iterable[str]) -> Iterator[Outcome]:
    """Evaluate a model type, and yield the outcome so far after each step.

    Composites with EP are only tried if the model has experts.
    """
    try:
        reference = build_reference(model_type)
    except NotRunnableError as reason:
        yield Outcome(model_type, Verdict("not counted", str(reason)), finished=True)
        return
    loaded: list[OperatorGraph] = []

    def load() -> Verdict:
        loaded.append(parframe.load(reference.config))
        return _compare(loaded[0], reference)

    outcome = Outcome(model_type, _verdict_of(load))
    if not outcome.loaded:
        yield attrs.evolve(outcome, finished=True)
        return
    yield outcome
    graph = loaded[0]
    has_experts = "experts" in name_dimensions(graph).chains
    for composite in composites:
        if has_experts or "EP" not in composite:
            verdict = _verdict_of(lambda composite=composite: _verify_plan(graph, composite))  # type: ignore[misc]
            outcome = attrs.evolve(outcome, plans={**outcome.plans, composite: verdict})
            yield outcome
    yield attrs.evolve(outcome, finished=True)


def _compare(graph: OperatorGraph, reference: ReferenceModel) -> Verdict:
    """Compare the logits of the graph with those of transformers."""
    weights = read_state_dict(graph, reference.model, reference.logits[0].dtype)
    for prompt, expected in zip(reference.prompts, reference.logits, strict=True):
        logits = run_graph(graph, {"input_ids": prompt}, weights, expected.dtype)["logits"]
        error = relative_error(logits, expected, find_scale(expected))
        if error > BOUNDS["float64"]:
            sizes = " x ".join(str(size) for size in prompt.shape)
            return Verdict("wrong", f"logits differ by {error:.3g} at {sizes}")
    return Verdict("loaded")


def _verify_plan(graph: OperatorGraph, composite: str) -> Verdict:
    """Partition the graph with a composite, check the plan and verify it."""
    plan = parframe.partition(graph, composite)
    report = parframe.check(plan)
    if not report.ok:
        return Verdict("wrong", _short(f"the plan fails its checks: {report.findings[0]}"))
    proof = parframe.verify(plan)
    if not proof.ok:
        place = proof.first_difference.operator if proof.first_difference else "its outputs"
        return Verdict("wrong", f"differs by {proof.max_error:.3g}, first at {place}")
    return Verdict("verified")


def _verdict_of(step: Callable[[], Verdict]) -> Verdict:
    """Return the verdict of a step; an error of any kind is a verdict too."""
    try:
        return step()
    except ParframeError as error:
        if error.kind == "internal":
            return Verdict("traceback", _short(error.what))
        return Verdict("refused", _short(f"{error.kind}: {error.where}: {error.what}"))
    except MemoryError:
        return Verdict("unfinished", "out of memory")
    except Exception as error:  # noqa: BLE001  # a defect of any kind is a verdict
        if "can't allocate memory" in str(error):
            return Verdict("unfinished", "out of memory")
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"
        return Verdict("traceback", _short(f"{place}: {type(error).__name__}: {error}"))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."

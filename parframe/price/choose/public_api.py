"""Public functions: choose a composite, and estimate the figures of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.models import find_model
from parframe.plan import Plan
from parframe.price.choose.candidates import (
    Candidate,
    make_candidate,
    with_intervals,
    with_more_points,
)
from parframe.price.choose.ranking import Choice, Objective, rank_composites
from parframe.price.choose.setup import ServingSetup, deploy, find_setup
from parframe.price.choose.use_cases import UseCase, find_use_case
from parframe.price.work.compressed.strategy_work import composite_work_reader, usable_strategies
from parframe.price.work.work import Work
from parframe.price.work.work_from_plan import work_from_plan

DEFAULT_STRATEGIES = ("PP", "EP", "DP", "TP")
"""Codes of the strategies that are tried unless others are given."""


def choose(
    model: OperatorGraph | str,
    devices: str,
    use: UseCase | str = "chat",
    *,
    objective: Objective = "throughput",
    strategies: Sequence[str] = DEFAULT_STRATEGIES,
    engine: str = "",
    weights: str | None = None,
    cache: str = "bf16",
    hardware: Iterable[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Rank every composite of a model on a number of devices.

    Parameters
    ----------
    model
        A graph, or the name of a shipped model.
    devices
        Number and name of the devices, such as ``"64xH100"``.
    use
        A use case or its name.
    objective
        ``throughput``, ``latency`` or ``cost``; see
        `parframe.price.choose.ranking.rank_composites`.
    strategies
        Codes of the strategies to combine.
    engine
        Serving engine (default: the median engine).
    weights, cache
        Dtypes of the weights (default: as published, or ``bf16`` for a graph) and of the KV cache:
        ``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``.
    hardware
        Files with devices and machines of your own.
    progress
        Function that is called with the number of priced composites and the number of all.

    Raises
    ------
    ParframeError
        If a name is unknown, or there is no composite to choose from.

    Examples
    --------
    >>> choose("mistral-7b", "2xH100").best.composite
    'DP2'
    """
    if isinstance(model, str):
        shipped = find_model(model)
        graph, published = shipped.graph(), shipped.weights
    else:
        graph, published = model, "bf16"
    use = find_use_case(use) if isinstance(use, str) else use
    setup = find_setup(devices, weights or published, cache, engine, hardware, graph.source)
    codes = usable_strategies(graph, strategies)
    return rank_composites(
        composite_work_reader(graph, codes), setup, use, codes, objective, progress
    )


def estimate(
    plan: Plan,
    devices: str,
    use: UseCase | str = "chat",
    *,
    engine: str = "",
    weights: str = "bf16",
    cache: str = "bf16",
    hardware: Iterable[Path] = (),
) -> Candidate:
    """Estimate memory, latency and throughput of one plan.

    Parameters
    ----------
    plan
        A plan of any strategies: its device graphs are read.
    devices, use, engine, weights, cache, hardware
        As for `choose`.

    Raises
    ------
    ParframeError
        Of kind ``memory``, if the plan does not fit; of kind ``mesh``, if it is for another number
        of devices.
    """
    use = find_use_case(use) if isinstance(use, str) else use
    setup = find_setup(devices, weights, cache, engine, hardware, plan.graph.source)
    return estimate_work(work_from_plan(plan), setup, use, str(plan.mesh))


def estimate_work(work: Work, setup: ServingSetup, use: UseCase, name: str) -> Candidate:
    """Estimate memory, latency and throughput from the work of one plan.

    Raises
    ------
    ParframeError
        As `estimate` does.
    """
    if work.devices != setup.cluster.devices:
        raise ParframeError(
            "mesh",
            setup.cluster_label,
            f"the plan is for {work.devices} devices",
            f"use {work.devices} devices",
        )
    candidate = make_candidate(name, deploy(work, setup), use)
    if isinstance(candidate, str):
        raise ParframeError(
            "memory",
            name,
            candidate,
            "use more devices, a smaller weight dtype or shorter sequences",
        )
    candidate = with_more_points(candidate, use)
    points = [with_intervals(point, candidate.deployment, setup) for point in candidate.points]
    return attrs.evolve(candidate, points=tuple(points))

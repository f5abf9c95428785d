"""What users ask for: which composite to use, and what a plan costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.models import find
from parframe.plan import Plan
from parframe.price.choose.candidates import (
    Candidate,
    Setting,
    candidate,
    deployed,
    finer,
    judged_point,
)
from parframe.price.choose.ranking import Choice, Objective
from parframe.price.choose.ranking import choose as choose_by
from parframe.price.choose.use_cases import UseCase, use_case
from parframe.price.cost.dtypes import Dtypes
from parframe.price.serving.engines import engine_on
from parframe.price.serving.hardware_lookup import cluster
from parframe.price.work.compressed.strategy_work import composite_work_reader, usable_strategies
from parframe.price.work.work_from_plan import work_from_plan

CODES = ("PP", "EP", "DP", "TP")
"""The strategies that are tried unless others are named."""


def choose(
    model: OperatorGraph | str,
    devices: str,
    use: UseCase | str = "chat",
    *,
    objective: Objective = "throughput",
    strategies: Sequence[str] = CODES,
    engine: str = "",
    weights: str | None = None,
    cache: str = "bf16",
    hardware: Iterable[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Rank every composite of a model for a number of devices.

    Parameters
    ----------
    model
        A graph, or the name of a model that ships.
    devices
        Such as ``"64xH100"``.
    use
        A use case or its name.
    objective
        ``throughput``, ``latency`` or ``cost``; see `parframe.price.choose.ranking.choose`.
    strategies
        The codes of the strategies.
    engine
        What serves; the middle of those known if empty.
    weights, cache
        Dtypes: ``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``; of weights, if not those
        that a model that ships is published in, and else ``bf16``.
    hardware
        Files with devices and machines of the user's own.
    progress
        Told how many of how many composites are done.

    Raises
    ------
    ParframeError
        If something is not known, or there is nothing to choose from.

    Examples
    --------
    >>> choose("mistral-7b", "2xH100").best.composite
    'DP2'
    """
    if isinstance(model, str):
        known = find(model)
        graph, own = known.graph(), known.weights
    else:
        graph, own = model, "bf16"
    use = use_case(use) if isinstance(use, str) else use
    setting = setting_of(devices, weights or own, cache, engine, hardware, graph.source)
    codes = usable_strategies(graph, strategies)
    return choose_by(composite_work_reader(graph, codes), setting, use, codes, objective, progress)


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
    """Price one plan.

    Parameters
    ----------
    plan
        The plan; of whatever strategies, since its device graphs are read.
    devices, use, engine, weights, cache, hardware
        As for `choose`.

    Raises
    ------
    ParframeError
        Of kind ``memory``, if it does not fit; of kind ``mesh``, if it is for other devices.
    """
    use = use_case(use) if isinstance(use, str) else use
    setting = setting_of(devices, weights, cache, engine, hardware, plan.graph.source)
    return priced(work_from_plan(plan), setting, use, str(plan.mesh))


def priced(work: Any, setting: Setting, use: UseCase, name: str) -> Candidate:
    """Price the work of one plan.

    Raises
    ------
    ParframeError
        As `estimate` does.
    """
    if work.devices != setting.cluster.devices:
        raise ParframeError(
            "mesh",
            setting.place,
            f"the plan is for {work.devices} devices",
            f"give {work.devices} devices",
        )
    found = candidate(name, deployed(work, setting), use)
    if isinstance(found, str):
        raise ParframeError(
            "memory", name, found, "use more devices, narrower weights or shorter sequences"
        )
    found = finer(found, use)
    points = [judged_point(at, found.deployment, setting) for at in found.points]
    return attrs.evolve(found, points=tuple(points))


def setting_of(
    devices: str,
    weights: str,
    cache: str,
    engine: str = "",
    hardware: Iterable[Path] = (),
    model: str = "",
) -> Setting:
    """Find the devices and the engine by their names; ``model`` is its usual one."""
    found = cluster(devices, hardware)
    return Setting.of(found, Dtypes(weights, cache), engine_on(found.machine, engine), model)


def overridden(use: UseCase, **own: float | None) -> UseCase:
    """Give a use case with figures of the user's own, those that are not None."""
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    return attrs.evolve(use, **given)

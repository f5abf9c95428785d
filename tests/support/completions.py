"""Runs of launched_plan.py: a tiny model on several ranks, one of which causes a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
from models import tiny_config

import parframe
from parframe.executors import local
from parframe.generation import Request, Result, Sampling, Settings
from parframe.launcher import Launch
from parframe.launcher.launch import Event

MODULE = str(Path(__file__).parent / "launched_plan.py")
"""Module of the fork server."""

COMPOSITES = {2: "TP2", 4: "TP2PP2"}
"""Composite for each number of ranks."""

REQUESTS = tuple(Request(n, (5 + n, 9, 33), Sampling(max_new_tokens=6)) for n in range(6))
"""More requests than fit a batch."""


@cache
def plan_of(world: int) -> parframe.Plan:
    """Return the plan of a tiny model of several layers."""
    graph = parframe.load(tiny_config("llama", num_hidden_layers=4), positions=True)
    return parframe.partition(graph, COMPOSITES[world])


def settings_of(phase: str, timeout: float = 60.0) -> Settings:
    """Return the settings of the run, compiled only to test the warm-up."""
    return Settings(batch_size=4, compiled=phase == "warm-up", timeout=timeout, dtype="float32")


def create_launch(
    world: int, settings: Settings, facts: Mapping[str, Any], environment: Mapping[str, str]
) -> Launch:
    """Create the launch of a run, in which one rank causes the fault that the facts name."""
    return local.create_launch(plan_of(world), REQUESTS, settings, MODULE, facts, environment)


@attrs.define
class _FaultFilter:
    """Messages of a run, without those of faults, which a function receives."""

    run: Launch
    fault: Callable[[Mapping[str, Any]], None]

    def events(self) -> Iterator[Event]:
        for event in self.run.events():
            if "fault" in event.message:
                self.fault(event.message)
            else:
                yield event

    def send(self, rank: int, message: Mapping[str, Any]) -> None:
        self.run.send(rank, dict(message))


def results(
    run: Launch, world: int, settings: Settings, fault: Callable[[Mapping[str, Any]], None]
) -> Iterator[Result]:
    """Yield the results of the requests, and pass messages of faults to a function."""
    observed = _FaultFilter(run, fault)
    for outcome in local.serve_requests(observed, plan_of(world), REQUESTS, settings):
        if isinstance(outcome, Result):
            yield outcome

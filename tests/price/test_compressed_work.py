"""Work of a composite without its plan is equal to the work of its plan."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from parframe import models
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.partitioning import partition
from parframe.price.work.compressed.repeated_layers import shorten
from parframe.price.work.compressed.work_from_composite import WorkReader, work_from_composite
from parframe.price.work.work import Work
from parframe.price.work.work_from_plan import work_from_plan
from parframe.spec import Spec


def parts(work: Work) -> Any:
    """Return the work without the order of its kernels."""
    stages = [(Counter(s.kernels), Counter(s.communication), s.footprint) for s in work.stages]
    return stages, work.devices, work.replicas, work.layers


CASES = {
    "Llama 3.1 8B": ["TP1", "TP16", "TP12", "TP3", "DP2TP2PP3", "CP2TP2", "TP4SP", "PP7", "PP16"],
    "Mixtral 8x7B": ["EP8TP4DP2", "EP4TP2SP", "TP2PP3EP2", "EP2DP2PP4"],
    "DeepSeek-V3": ["EP8TP2PP3", "TP4PP7"],
    "GPT-OSS 20B": ["TP2PP5", "EP4PP3", "PP12"],
    "GPT-J 6B": ["TP2PP3"],
    "Llama 4 Scout": ["EP8TP4", "TP2PP5"],
    "Llama 4 Maverick": ["EP4TP8", "TP2PP5EP2"],
}


@pytest.mark.parametrize(
    ("name", "composite"), [(name, one) for name, many in CASES.items() for one in many]
)
def test_work_of_a_composite_equals_the_work_of_its_plan(name: str, composite: str) -> None:
    graph = models.find_model(name).graph()
    assert parts(work_from_composite(graph, composite)) == parts(
        work_from_plan(partition(graph, composite))
    )


def test_stage_starts_that_are_given_are_kept() -> None:
    spec = Spec(parallel="TP2PP2", strategies={"pp": {"stage_starts": (5,)}})
    graph = models.find_model("Llama 3.1 8B").graph()
    work = work_from_composite(graph, spec)
    assert parts(work) == parts(work_from_plan(partition(graph, spec)))
    assert work.stages[0].footprint.cache == ((5 * 2 * 4 * 128, None),)


def test_stages_beyond_layers_are_refused_as_a_plan_refuses_them() -> None:
    graph = models.find_model("Llama 3.1 8B").graph()
    with pytest.raises(ParframeError) as fast:
        work_from_composite(graph, "PP64")
    with pytest.raises(ParframeError) as slow:
        partition(graph, "PP64")
    assert str(fast.value) == str(slow.value)


def test_composites_of_other_degrees_share_steps() -> None:
    reader = WorkReader(models.find_model("Mixtral 8x7B").graph(), ())
    for composite in ("TP2EP2", "TP4EP8", "DP2TP8EP4", "PP2TP4EP4"):
        reader.work(Spec(parallel=composite).placing())
    with_data, without = reader.device_steps.shared.values()
    assert len(reader.device_steps.known) == 4
    assert len(with_data.steps) == len(without.steps)


def test_a_graph_is_shortened_to_a_few_of_its_layers() -> None:
    for name, most in (("Llama 3.1 405B", 7), ("DeepSeek-V3", 10), ("GPT-OSS 120B", 11)):
        graph: OperatorGraph = models.find_model(name).graph()
        short = shorten(graph)
        assert short is not None
        assert len(short.graph.calls) <= most < len(graph.calls)

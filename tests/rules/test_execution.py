"""Every rule holds when it is executed on parts: PyTorch's samples and loaded models."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from models import FAMILIES, PLAIN, tiny_config

from parframe.loading import load
from parframe.sizes import symbols_of
from rules.calls import sampled
from rules.models import graph_calls
from rules.oracle import Tally


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_no_rule_is_false_on_samples_of_pytorch():
    tally, order = Tally(), random.Random(1)
    for call in sampled(1, per_operator=1):
        tally.prove(call, order)
    print(f"{tally.proofs} proofs of {len(tally.covered)} operators")
    assert not tally.wrong, "\n\n".join(tally.wrong[:5])
    assert len(tally.covered) > 300


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_of_a_model_has_a_rule_that_holds(family):
    prove_graph(load(tiny_config(family)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_every_operator_of_a_plain_module_has_a_rule_that_holds(name):
    make, shapes = PLAIN[name]
    inputs = {key: torch.randn(shape, dtype=torch.float64) for key, shape in shapes.items()}
    prove_graph(load(make(), inputs, {key: {0: "batch"} for key in shapes}))


def prove_graph(graph) -> None:
    torch.manual_seed(0)
    values = {"batch": 3, "sequence": 6}
    for tensor in graph.inputs.values():
        for size in tensor.shape:
            values.update({name: 5 for name in symbols_of(size) if name not in values})
    tally, order = Tally(), random.Random(0)
    for call in graph_calls(graph, values):
        tally.prove(call, order)
    assert not tally.wrong, "\n\n".join(tally.wrong[:5])
    assert not tally.ruleless
    assert not tally.refused

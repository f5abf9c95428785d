"""Context parallelism: the sequence split over devices, keys and values brought together."""

from functools import cache

import models
import pytest
import torch
from proving import assert_equal, communication

from parframe.checking import check
from parframe.loading import load
from parframe.partitioning import partition
from parframe.run import simulate, verify
from parframe.spec import Spec

pytestmark = pytest.mark.slow

FAMILIES = ("llama", "gemma2", "bert", "gpt2")
COMPOSITES = ("CP2", "CP3", "CP2TP2", "DP2CP2TP2", "PP2CP2", "CP2TP2SP")


@cache
def graph_of(name):
    return load(models.tiny_config(name))


@cache
def expected_of(name, rows, length):
    """A family's model, inputs and what transformers itself returns for them."""
    model = models.tiny_model(name)
    inputs = {"input_ids": models.tokens(rows, length)}
    return model, inputs, models.reference(model, inputs).logits


def assert_computes(plan, name, *lengths):
    """The plan passes the checks and computes what transformers does for these lengths."""
    report = check(plan)
    assert report.ok, report.findings[:3]
    for length in lengths:
        model, inputs, expected = expected_of(name, 3, length)
        assert_equal(simulate(plan, inputs, model, "float64").logits, expected, 1e-11)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_split_sequence_computes_what_transformers_computes(name, composite):
    plan = partition(graph_of(name), composite)
    assert_computes(plan, name, 11, 2, 1)
    assert verify(plan).ok


def test_only_keys_and_values_are_gathered():
    assert communication(partition(graph_of("llama"), "CP2")) == {"all_gather": 2 * 2}


def ring(composite):
    return Spec(parallel=composite, strategies={"cp": {"attention": "ring"}})


@pytest.mark.parametrize("name", [*FAMILIES, "mistral"])
@pytest.mark.parametrize("composite", ["CP2", "CP3", "CP5", "DP2CP2TP2", "PP2CP2", "CP2TP2SP"])
def test_a_ring_computes_what_transformers_computes(name, composite):
    plan = partition(graph_of(name), ring(composite))
    assert_computes(plan, name, 11, 2, 1)
    assert verify(plan).ok


def test_a_ring_gathers_nothing():
    assert communication(partition(graph_of("llama"), ring("CP2"))) == {"ring_attention": 2}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_sequence_of_any_modules_attention_is_split(attention):
    model = models.tiny_model("gpt2", attention=attention, use_cache=False)
    inputs = {"input_ids": models.tokens(3, 11)}
    plan = partition(load(model, inputs, {"input_ids": {0: "batch", 1: "sequence"}}), "CP3TP2")
    assert check(plan).ok
    for length in (11, 2):
        inputs = {"input_ids": models.tokens(3, length)}
        with torch.no_grad():
            expected = model(**inputs).logits
        assert_equal(simulate(plan, inputs, model)["logits"], expected, 1e-11)

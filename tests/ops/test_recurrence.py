"""State-space and linear-attention layers load as one operator, and are split by their heads."""

import importlib
import random

import models
import pytest
import torch
from rules.calls import make_call
from rules.oracle import Tally

import parframe
from parframe.coverage.evaluation import evaluate
from parframe.loading.huggingface import recurrence_kernels
from parframe.ops.recurrence import recurrence


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def own(model_type, name):
    """A function of transformers, run with no number narrower than float64."""
    module = f"transformers.models.{model_type}.modeling_{model_type}"
    function = getattr(importlib.import_module(module), name)

    def run(*args, **kwargs):
        with models.Float64Mode():
            return function(*args, **kwargs)

    return run


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("unit", [False, True])
def test_the_delta_rule_is_that_of_transformers(groups, unit):
    keys = {"query": drawn(2, 7, groups, 8), "key": drawn(2, 7, groups, 8, seed=1) / 8}
    rest = {
        "value": drawn(2, 7, 4, 6),
        "g": -drawn(2, 7, 4).abs(),
        "beta": drawn(2, 7, 4).sigmoid(),
    }
    whole = own("qwen3_next", "torch_chunk_gated_delta_rule")(
        **keys, **rest, chunk_size=4, use_qk_l2norm_in_kernel=unit
    )[0]
    with models.Float64Mode():
        found, _ = recurrence_kernels._delta_rule(**keys, **rest, use_qk_l2norm_in_kernel=unit)
    torch.testing.assert_close(found, whole, rtol=1e-11, atol=1e-11)


def test_the_delta_rule_with_a_decay_for_each_row_is_that_of_transformers():
    shape = (2, 7, 4, 8)
    given = [drawn(*shape), drawn(*shape, seed=1) / 8, drawn(*shape, seed=2), -drawn(*shape).abs()]
    beta = drawn(2, 7, 4).sigmoid()
    whole = own("kimi_linear", "chunk_kimi_delta_attention")(*given, beta, chunk_size=4)[0]
    with models.Float64Mode():
        found, _ = recurrence_kernels._delta_rule(*given, beta)
    torch.testing.assert_close(found, whole, rtol=1e-11, atol=1e-11)


def test_the_selective_scan_is_that_of_transformers():
    given = [drawn(2, 6, 7), drawn(2, 6, 7, seed=1), -drawn(6, 4).abs(), drawn(2, 4, 7)]
    given.append(drawn(2, 4, 7, seed=1))
    rest = {"D": drawn(6), "z": drawn(2, 6, 7, seed=2), "delta_bias": drawn(6, seed=1)}
    whole = own("mamba", "mamba_selective_scan")(*given, **rest, delta_softplus=True)
    with models.Float64Mode():
        found = recurrence_kernels._selective_scan(*given, **rest, delta_softplus=True)
    torch.testing.assert_close(found, whole, rtol=1e-11, atol=1e-11)


def test_the_scan_of_heads_is_that_of_transformers():
    given = [drawn(2, 7, 4, 6), drawn(2, 7, 4), -drawn(4).abs(), drawn(2, 7, 2, 8)]
    given.append(drawn(2, 7, 2, 8, seed=1))
    rest = {"chunk_size": 4, "D": drawn(4, seed=1), "dt_bias": drawn(4, seed=2)}
    whole = own("mamba2", "mamba2_chunk_scan")(*given, **rest, dt_softplus=True)
    with models.Float64Mode():
        found = recurrence_kernels._chunk_scan(*given, **rest, dt_softplus=True)
    torch.testing.assert_close(found, whole, rtol=1e-11, atol=1e-11)


def test_a_state_from_before_is_refused():
    with pytest.raises(recurrence_kernels.UnsupportedKernelError, match="initial_state"):
        recurrence_kernels._delta_rule(
            *[drawn(1, 2, 2, 2)] * 4, drawn(1, 2, 2), initial_state=drawn(1)
        )


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_rule_of_the_recurrence_holds(groups, delta, rows):
    given = (
        drawn(3, 6, groups, 5), drawn(3, 6, groups, 5, seed=1), drawn(3, 6, 4, 7),
        -drawn(3, 6, 4, rows).abs(), drawn(3, 6, 4) if delta else None,
    )  # fmt: skip
    target = torch.ops.parframe.recurrence.default
    tally = Tally()
    tally.prove(make_call(target, given, {}, recurrence(*given)), random.Random(0))
    assert tally.proofs
    assert not tally.wrong
    assert not tally.refused


def test_transformers_is_left_as_it_was():
    mamba = importlib.import_module("transformers.models.mamba2.modeling_mamba2")
    before = mamba.mamba2_chunk_scan
    graph = parframe.load(
        {"model_type": "mamba2", "hidden_size": 16, "num_heads": 4, "head_dim": 8,
         "num_hidden_layers": 2, "vocab_size": 32, "state_size": 8, "n_groups": 2}
    )  # fmt: skip
    assert mamba.mamba2_chunk_scan is before
    assert "parframe.recurrence.default" in {op.target for _, op in graph.expand()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_type", ["mamba", "mamba2", "falcon_h1", "olmo_hybrid", "kimi_linear"]
)
def test_a_model_of_recurrent_layers_is_split_by_its_heads(model_type):
    *_, outcome = evaluate(model_type, ["TP2"])
    assert outcome.loading.state == "loaded", outcome.loading.reason
    assert outcome.is_verified(["TP2"]), outcome.plans

"""Experts: the operator, its rule, and what is exported of transformers' layers of experts."""

import random

import models
import pytest
import torch
from rules.calls import make_call
from rules.oracle import Tally

from parframe.dims import name_dimensions
from parframe.loading import load
from parframe.loading.huggingface.experts import UnsupportedExpertsError, trace_activation
from parframe.ops.activation import run_activation

EXPERTS, IN, WIDTH, OUT, TOKENS, CHOICES = 5, 4, 6, 3, 7, 2


def gated(rows):
    gate, up = rows.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def clamped(rows):
    gate, up = rows[..., ::2].clamp(max=1.0), rows[..., 1::2].clamp(-1.0, 1.0)
    return (up + 1) * gate * torch.sigmoid(gate * 1.7)


FORMS = {
    "gated": (gated, 2, False),
    "interleaved and clamped": (clamped, 2, True),
    "without a gate": (lambda rows: torch.relu(rows).square(), 1, False),
}


def arguments(form, transposed=False, bias=False, seed=0):
    function, gates, interleaved = FORMS[form]
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    up, down = drawn(EXPERTS, gates * WIDTH, IN), drawn(EXPERTS, OUT, WIDTH)
    return (
        drawn(TOKENS, IN),
        torch.randint(EXPERTS, (TOKENS, CHOICES), generator=generator),
        drawn(TOKENS, CHOICES),
        up.transpose(1, 2).contiguous() if transposed else up,
        drawn(EXPERTS, gates * WIDTH) if bias else None,
        down.transpose(1, 2).contiguous() if transposed else down,
        drawn(EXPERTS, OUT) if bias else None,
        trace_activation(function, WIDTH, gates, interleaved),
        gates,
        interleaved,
        transposed,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [False, True])
def test_every_token_is_the_weighted_sum_of_its_experts(form, bias):
    hidden, ids, weights, up, up_bias, down, down_bias, *rest = arguments(form, bias=bias)
    found = torch.ops.parframe.experts(hidden, ids, weights, up, up_bias, down, down_bias, *rest)
    for token in range(TOKENS):
        expected = torch.zeros(OUT, dtype=torch.float64)
        for choice in range(CHOICES):
            expert = int(ids[token, choice])
            inner = up[expert] @ hidden[token] + (up_bias[expert] if bias else 0)
            outer = down[expert] @ FORMS[form][0](inner) + (down_bias[expert] if bias else 0)
            expected += weights[token, choice] * outer
        torch.testing.assert_close(found[token], expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_rule_holds_when_it_is_executed_on_parts(form, transposed, bias):
    args = arguments(form, transposed, bias)
    call = make_call(
        torch.ops.parframe.experts.default, args, {}, torch.ops.parframe.experts(*args)
    )
    tally = Tally()
    tally.prove(call, random.Random(0))
    assert not tally.wrong, "\n\n".join(tally.wrong)
    assert tally.proofs >= 10


def test_an_activation_is_kept_as_text_and_does_not_narrow_numbers():
    text = trace_activation(lambda rows: gated(rows.float()).to(rows.dtype), WIDTH, 2, False)
    rows = torch.randn(3, 2 * WIDTH, dtype=torch.float64)
    assert torch.equal(run_activation(text, rows), gated(rows))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda rows: torch.softmax(gated(rows), -1), "across the columns"),
        (lambda rows: rows, "changes the width"),
        (torch.nn.Sequential(torch.nn.Linear(12, 6).double()), "weights of its own"),
    ],
)
def test_an_activation_that_is_not_one_of_columns_is_refused(function, message):
    with pytest.raises(UnsupportedExpertsError, match=message):
        trace_activation(function, WIDTH, 2, False)


@pytest.mark.parametrize("family", models.EXPERT_FAMILIES)
def test_experts_and_their_width_are_named_without_a_models_name(family):
    graph = load(models.tiny_config(family))
    found = name_dimensions(graph)
    sizes = {
        role: {found.dimensions[dim].size for chain in found.chains[role] for dim in chain}
        for role in ("experts", "expert_ffn")
    }
    config = models.tiny_config(family)
    assert sizes["experts"] == {8 if family == "deepseek_v3" else 6}
    own = family in ("qwen3_moe", "deepseek_v3")
    assert sizes["expert_ffn"] == {config.moe_intermediate_size if own else 112}


@pytest.mark.parametrize(
    "family", [name for name in models.EXPERT_FAMILIES if name != "llama4_text"]
)
def test_experts_are_one_operator_a_layer(family):
    graph = load(models.tiny_config(family))
    targets = [operator.target for _, operator in graph.expand()]
    assert targets.count("parframe.experts.default") == 2

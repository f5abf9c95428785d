"""A real trained Llama (8 heads, 4 key-value heads, 5 layers) under every composite."""

from functools import cache

import models
import pytest
import torch
from plan_assertions import STORIES, assert_equal, needs_stories

from parframe.checking import check
from parframe.loading import load
from parframe.partitioning import partition
from parframe.simulation import simulate

pytestmark = [needs_stories, pytest.mark.slow]

COMPOSITES = (
    "TP2", "TP3", "TP4", "TP5", "TP6", "TP7", "TP8", "PP2", "PP5", "DP2", "SP2", "TP4SP",
    "TP2PP2DP2", "PP4TP4DP4",
)  # fmt: skip


@cache
def graph():
    return load(STORIES)


@cache
def expected(dtype):
    """Return the token ids of a few lines, and the logits of transformers for them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    text = [
        "Once upon a time, there was a little girl named Lily. She loved to play",
        "One day, a big red ball was high in the tree. The boy wanted to",
        "The cat and the dog were friends. They liked to run in the park",
        "Mom said, do not touch the hot stove, or you will be very sad. But",
        "There was a bird who could not fly. It lived in a small house",
    ]
    rows = [tokenizer(line, add_special_tokens=False)["input_ids"][:17] for line in text]
    ids = torch.tensor([row[: min(map(len, rows))] for row in rows])
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=dtype).eval()
    if dtype == torch.float64:
        return ids, models.reference_outputs(model, {"input_ids": ids}).logits
    with torch.no_grad():
        return ids, model(ids).logits


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-11), ("float32", 1e-5)])
def test_the_logits_are_those_of_transformers(composite, dtype, bound):
    ids, logits = expected(getattr(torch, dtype))
    plan = partition(graph(), composite)
    assert check(plan).ok
    assert_equal(simulate(plan, {"input_ids": ids}, STORIES, dtype).logits, logits, bound)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_float64_weights_give_the_logits_of_transformers_own_float64_model(composite):
    from transformers import AutoModelForCausalLM

    ids, _ = expected(torch.float64)
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = model(ids).logits
    actual = simulate(partition(graph(), composite), {"input_ids": ids}, model.state_dict()).logits
    assert_equal(actual, logits, 1e-11)


def test_more_tensor_ranks_than_key_value_heads_replicate_them():
    plan = partition(graph(), "TP8")
    keys = [plan.weights(rank)["model.layers.0.self_attn.k_proj.weight"].runs for rank in range(8)]
    assert keys == [(((8 * (r // 2), 8 * (r // 2) + 8),), ((0, 64),)) for r in range(8)]
    queries = [
        plan.weights(rank)["model.layers.0.self_attn.q_proj.weight"].runs for rank in range(8)
    ]
    assert queries == [(((8 * r, 8 * r + 8),), ((0, 64),)) for r in range(8)]


def test_uneven_key_value_heads_stay_with_their_query_heads():
    plan = partition(graph(), "TP3")
    name = "model.layers.2.self_attn.{}_proj.weight"
    rows = {
        which: [plan.weights(rank)[name.format(which)].runs[0] for rank in range(3)]
        for which in "qk"
    }
    assert rows["k"] == [((0, 16),), ((16, 24),), ((24, 32),)]
    assert rows["q"] == [((0, 32),), ((32, 48),), ((48, 64),)]

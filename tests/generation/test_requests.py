import json
import math
import subprocess
import sys

import attrs
import handmade
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.generation import Batch, Failure, Ledger, Request, Result, Sampling, Settings, Token
from parframe.generation.model_limits import Limits, limits_of
from parframe.generation.requests import check_request, facts_of, outcome_of, request_of
from parframe.generation.scheduler import batches, distributed
from parframe.loading import load

LOST = ParframeError("run", "rank 3", "was lost", "start it again")


def request(number, length=3, new=5):
    return Request(number, range(length), Sampling(max_new_tokens=new))


def through_json(thing):
    return json.loads(json.dumps(facts_of(thing), allow_nan=False))


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"stop": ("a",)}, "token ids"),
    ],
)
def test_a_sampling_that_cannot_be_is_refused(values, where):
    with pytest.raises(ParframeError) as told:
        Sampling(**values)
    assert (told.value.kind, told.value.where) == ("input", where)


@pytest.mark.parametrize(
    ("tokens", "what"), [((), "the prompt is empty"), ((1, 2.5), "are not whole numbers")]
)
def test_a_prompt_that_is_none_is_refused(tokens, what):
    with pytest.raises(ParframeError, match=what) as told:
        Request(0, tokens)
    assert told.value.kind == "input"


@pytest.mark.parametrize("token", [-1, 16])
def test_a_token_out_of_range_is_named_with_its_position_and_the_range(token):
    with pytest.raises(ParframeError) as told:
        check_request(Request(7, (0, 15, token)), vocabulary=16)
    assert str(told.value) == (
        f"error[input] request 7, token 2: {token} is not a token of the model, which has 16; "
        "give ids from 0 to 15, of the model's own tokenizer"
    )


def test_a_prompt_that_is_too_long_is_told_with_both_numbers_and_the_way_out():
    with pytest.raises(ParframeError, match="has 10 tokens, the cache holds 8") as told:
        check_request(request(0, 10), 16, model=100, cache=8)
    assert told.value.hint == "shorten the prompt by 2 tokens, or give the cache a longer context"
    with pytest.raises(ParframeError, match="has 10 tokens, the model holds 9") as told:
        check_request(request(0, 10), 16, model=9)
    assert told.value.hint == "shorten the prompt by 1 tokens, or use a model for longer texts"


def test_the_last_new_token_needs_no_position():
    check_request(request(0, 10, 6), 16, cache=15)
    with pytest.raises(ParframeError, match="need 15 positions, the cache holds 14") as told:
        check_request(request(0, 10, 6), 16, cache=14)
    assert told.value.hint.startswith("ask for at most 5 new tokens")
    check_request(request(0, 10, 5), 16, cache=14)


@given(
    st.builds(
        Request,
        st.integers(0, 2**40),
        st.lists(st.integers(0, 2**20), min_size=1, max_size=5),
        st.builds(
            Sampling,
            temperature=st.floats(0, 10),
            top_k=st.none() | st.integers(1, 99),
            top_p=st.none() | st.floats(0.01, 1),
            seed=st.integers(0, 2**64 - 1),
            stop=st.lists(st.integers(0, 9), max_size=3),
        ),
    )
)
def test_a_request_comes_back_from_json(asked):
    assert request_of(through_json(asked)) == asked


def test_what_comes_of_a_request_comes_back_from_json():
    for outcome in (Token(3, 0, 17), Result(3, (17, 2), "stop")):
        assert outcome_of(through_json(outcome)) == outcome
    failure = outcome_of(through_json(Failure(3, LOST)))
    assert (failure.number, str(failure.error)) == (3, str(LOST))


@pytest.mark.parametrize(
    "change",
    [{"sampling": {"temperature": -1}}, {"sampling": {"heat": 1}}, {"tokens": []}, {"more": 1}],
)
def test_json_that_is_no_request_is_refused(change):
    with pytest.raises(ParframeError) as told:
        request_of({**through_json(request(0)), **change})
    assert told.value.kind == "input"
    with pytest.raises(ParframeError):
        outcome_of({"number": 3, **change})


def test_the_text_of_a_result_is_without_its_stop_token():
    assert Result(0, (5, 6, 2), "stop").content == (5, 6)
    assert Result(0, (5, 6, 2), "length").content == (5, 6, 2)
    with pytest.raises(ParframeError, match="no way to end"):
        Result(0, (), "boredom")


def test_a_batch_is_filled_up_on_the_right():
    batch = Batch((request(0, 3), request(1, 1)))
    assert (batch.padded(9), batch.lengths) == (((0, 1, 2), (0, 9, 9)), (3, 1))
    assert batch.positions == request(0, 3).positions


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=30),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_batches_hold_every_request_once_the_longest_first(sizes, rows, replicas):
    asked = [request(number, *size) for number, size in enumerate(sizes)]
    made = batches(asked, rows, replicas)
    assert sorted(r.number for batch in made for r in batch.requests) == list(range(len(asked)))
    assert all(len(batch.requests) <= rows for batch in made)
    loads = [r.load for batch in made for r in batch.requests]
    assert loads == sorted(loads, reverse=True)


def test_no_replica_is_idle_while_another_has_two_rows():
    made = batches([request(number) for number in range(8)], rows=8, replicas=4)
    assert [len(batch.requests) for batch in made] == [2, 2, 2, 2]


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_no_replica_has_much_more_than_the_best_distribution_could_give(sizes, replicas):
    parts = [Batch((request(number, *size),)) for number, size in enumerate(sizes)]
    given_parts = distributed(parts, replicas)
    assert sorted(b.load for part in given_parts for b in part) == sorted(b.load for b in parts)
    loads = [sum(batch.load for batch in part) for part in given_parts]
    best = max(sum(loads) / replicas, max(batch.load for batch in parts))
    assert max(loads) <= best + (1 - 1 / replicas) * max(b.load for b in parts)
    assert max(loads) - min(loads) <= max(batch.load for batch in parts)


def ledger(*numbers):
    account = Ledger()
    for number in numbers:
        account.submit(request(number))
    return account


def test_results_come_in_the_order_of_submission():
    account = ledger(4, 2, 9)
    account.settle(Result(2, (1,), "length"))
    assert list(account.ready()) == []
    account.settle(Result(4, (1,), "length"))
    assert [outcome.number for outcome in account.ready()] == [4, 2]
    account.settle(Failure(9, LOST))
    assert [outcome.number for outcome in account.ready()] == [9]
    assert [outcome.number for outcome in account.close()] == [4, 2, 9]


@pytest.mark.parametrize("second", [Result(0, (2,), "length"), Failure(0, LOST)])
@pytest.mark.parametrize("first", [Result(0, (1,), "length"), Failure(0, LOST)])
def test_a_second_outcome_is_refused(first, second):
    account = ledger(0)
    account.settle(first)
    with pytest.raises(ParframeError, match="request 0: something came of it, but it has ended"):
        account.settle(second)
    assert account.close() == (first,)


def test_what_was_not_asked_for_is_refused():
    with pytest.raises(ParframeError, match="never submitted"):
        ledger(0).settle(Result(1, (1,), "length"))
    with pytest.raises(ParframeError, match="was submitted before"):
        ledger(0, 0)


def test_requests_of_which_nothing_came_are_named():
    account = ledger(*range(12))
    account.settle(Result(1, (1,), "length"))
    with pytest.raises(ParframeError) as told:
        account.close()
    assert told.value.where == "requests 0, 2, 3, 4, 5, 6, 7, 8, ..."
    assert told.value.what == "nothing came of 11 of 12 requests"


@pytest.mark.parametrize(
    "values", [{"rows": 0}, {"context": 0}, {"timeout": 0.0}, {"rows": 2, "micro_batches": 3}]
)
def test_settings_that_cannot_be_are_refused(values):
    with pytest.raises(ParframeError) as told:
        Settings(**values)
    assert told.value.kind == "input"


def test_a_device_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(
        ParframeError, match=r"kind 'cude' .did you mean 'cuda'\?.; give one of cpu"
    ):
        Settings(device="cude")


def test_requests_are_read_and_scheduled_without_torch():
    code = "import parframe.generation, sys; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_a_request_cannot_be_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request(0).number = 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gpt2", "n_positions": 40, "n_layer": 2, "n_embd": 32, "n_head": 2}, 40),
        (
            {
                "model_type": "llama", "max_position_embeddings": 60, "num_hidden_layers": 2,
                "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
            },
            60,
        ),
    ],
)  # fmt: skip
def test_a_model_tells_its_tokens_and_its_positions(config, expected):
    graph = load({**config, "vocab_size": 99}, positions=True)
    assert limits_of(graph) == Limits(99, expected)


def test_a_model_without_tokens_is_told():
    with pytest.raises(ParframeError, match="takes no tokens"):
        limits_of(handmade.mlp())

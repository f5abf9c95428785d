import json
import math
import subprocess
import sys

import attrs
import handwritten
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.generation import (
    Batch,
    Failure,
    Request,
    RequestTracker,
    Result,
    Sampling,
    Settings,
    Token,
)
from parframe.generation.model_limits import ModelLimits, find_model_limits
from parframe.generation.request_checks import check_request
from parframe.generation.request_json import parse_outcome, parse_request, to_json
from parframe.generation.scheduler import create_batches, distribute_batches
from parframe.loading import load

LOST = ParframeError("run", "rank 3", "was lost", "start it again")


def request(number, length=3, new=5):
    return Request(number, range(length), Sampling(max_new_tokens=new))


def through_json(value):
    return json.loads(json.dumps(to_json(value), allow_nan=False))


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
        ({"stop": ("a",)}, "token IDs"),
    ],
)
def test_invalid_sampling_parameters_are_refused(values, where):
    with pytest.raises(ParframeError) as error:
        Sampling(**values)
    assert (error.value.kind, error.value.where) == ("input", where)


@pytest.mark.parametrize(
    ("tokens", "what"), [((), "the prompt is empty"), ((1, 2.5), "are not integers")]
)
def test_invalid_prompt_is_refused(tokens, what):
    with pytest.raises(ParframeError, match=what) as error:
        Request(0, tokens)
    assert error.value.kind == "input"


@pytest.mark.parametrize("token", [-1, 16])
def test_token_out_of_range_is_named_with_its_index_and_the_range(token):
    with pytest.raises(ParframeError) as error:
        check_request(Request(7, (0, 15, token)), vocabulary=16)
    assert str(error.value) == (
        f"error[input] request 7, token 2: {token} is not a token ID of the model, "
        "which has 16 tokens; use IDs from 0 to 15, of the model's tokenizer"
    )


def test_error_of_a_long_prompt_has_both_numbers_and_a_hint():
    with pytest.raises(ParframeError, match="has 10 tokens, the cache has 8") as error:
        check_request(request(0, 10), 16, model=100, cache=8)
    assert (
        error.value.hint
        == "shorten the prompt by 2 tokens, or set a longer context (--context, context=)"
    )
    with pytest.raises(ParframeError, match="has 10 tokens, the model has 9") as error:
        check_request(request(0, 10), 16, model=9)
    assert error.value.hint == "shorten the prompt by 1 tokens, or use a model with more positions"


def test_last_new_token_needs_no_position():
    check_request(request(0, 10, 6), 16, cache=15)
    with pytest.raises(ParframeError, match="need 15 positions, the cache has 14") as error:
        check_request(request(0, 10, 6), 16, cache=14)
    assert error.value.hint.startswith("set at most 5 new tokens")
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
def test_request_survives_json(asked):
    assert parse_request(through_json(asked)) == asked


def test_outcomes_survive_json():
    for outcome in (Token(3, 0, 17), Result(3, (17, 2), "stop")):
        assert parse_outcome(through_json(outcome)) == outcome
    failure = parse_outcome(through_json(Failure(3, LOST)))
    assert (failure.number, str(failure.error)) == (3, str(LOST))


@pytest.mark.parametrize(
    "change",
    [{"sampling": {"temperature": -1}}, {"sampling": {"heat": 1}}, {"tokens": []}, {"more": 1}],
)
def test_json_of_another_object_is_refused(change):
    with pytest.raises(ParframeError) as error:
        parse_request({**through_json(request(0)), **change})
    assert error.value.kind == "input"
    with pytest.raises(ParframeError):
        parse_outcome({"number": 3, **change})


def test_unknown_finish_reason_is_refused():
    with pytest.raises(ParframeError, match="is not a finish reason"):
        Result(0, (), "boredom")


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=30),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_batches_have_every_request_once_the_longest_first(sizes, rows, replicas):
    asked = [request(number, *size) for number, size in enumerate(sizes)]
    batches = create_batches(asked, rows, replicas)
    assert sorted(r.number for batch in batches for r in batch.requests) == list(range(len(asked)))
    assert all(len(batch.requests) <= rows for batch in batches)
    loads = [r.load for batch in batches for r in batch.requests]
    assert loads == sorted(loads, reverse=True)


def test_no_replica_is_idle_while_another_has_two_rows():
    batches = create_batches([request(number) for number in range(8)], rows=8, replicas=4)
    assert [len(batch.requests) for batch in batches] == [2, 2, 2, 2]


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_largest_load_of_a_replica_is_close_to_the_best_distribution(sizes, replicas):
    parts = [Batch((request(number, *size),)) for number, size in enumerate(sizes)]
    assigned = distribute_batches(parts, replicas)
    assert sorted(b.load for part in assigned for b in part) == sorted(b.load for b in parts)
    loads = [sum(batch.load for batch in part) for part in assigned]
    best = max(sum(loads) / replicas, max(batch.load for batch in parts))
    assert max(loads) <= best + (1 - 1 / replicas) * max(b.load for b in parts)
    assert max(loads) - min(loads) <= max(batch.load for batch in parts)


def create_tracker(*numbers):
    tracker = RequestTracker()
    for number in numbers:
        tracker.submit(request(number))
    return tracker


def test_outcomes_are_in_the_order_of_submission():
    tracker = create_tracker(4, 2, 9)
    tracker.finish(Result(2, (1,), "length"))
    tracker.finish(Result(4, (1,), "length"))
    tracker.finish(Failure(9, LOST))
    assert [outcome.number for outcome in tracker.close()] == [4, 2, 9]


@pytest.mark.parametrize("second", [Result(0, (2,), "length"), Failure(0, LOST)])
@pytest.mark.parametrize("first", [Result(0, (1,), "length"), Failure(0, LOST)])
def test_second_outcome_is_refused(first, second):
    tracker = create_tracker(0)
    tracker.finish(first)
    with pytest.raises(ParframeError, match="request 0: got an outcome, but it had already ended"):
        tracker.finish(second)
    assert tracker.close() == (first,)


def test_outcome_without_a_request_is_refused():
    with pytest.raises(ParframeError, match="never submitted"):
        create_tracker(0).finish(Result(1, (1,), "length"))
    with pytest.raises(ParframeError, match="was submitted before"):
        create_tracker(0, 0)


def test_requests_without_an_outcome_are_named():
    tracker = create_tracker(*range(12))
    tracker.finish(Result(1, (1,), "length"))
    with pytest.raises(ParframeError) as error:
        tracker.close()
    assert error.value.where == "requests 0, 2, 3, 4, 5, 6, 7, 8, ..."
    assert error.value.what == "11 of 12 requests have no outcome"


@pytest.mark.parametrize(
    "values",
    [{"batch_size": 0}, {"context": 0}, {"timeout": 0.0}, {"batch_size": 2, "micro_batches": 3}],
)
def test_invalid_settings_are_refused(values):
    with pytest.raises(ParframeError) as error:
        Settings(**values)
    assert error.value.kind == "input"


def test_unknown_device_is_refused_with_a_suggestion():
    with pytest.raises(
        ParframeError, match=r"unknown kind 'cude' .did you mean 'cuda'\?.; use one of cpu"
    ):
        Settings(device="cude")


def test_requests_need_no_torch():
    code = "import parframe.generation, sys; print('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "False\n"


def test_request_is_immutable():
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
def test_limits_of_models(config, expected):
    graph = load({**config, "vocab_size": 99}, positions=True)
    assert find_model_limits(graph) == ModelLimits(99, expected)


def test_model_without_tokens_is_refused():
    with pytest.raises(ParframeError, match="takes no tokens"):
        find_model_limits(handwritten.mlp())

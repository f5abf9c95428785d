"""The survey of models: what it finds, keeps and tells."""

import json

import attrs
import pytest
import torch

from parframe.coverage import Limits, Outcome, Verdict, page, survey, totals
from parframe.coverage.examine import examine
from parframe.coverage.model import NotRunnableError, model_types, sample
from parframe.coverage.outcome import add_outcome, read_outcomes
from parframe.coverage.shrink import tiny_contents
from parframe.errors import ParframeError

PROVED = Outcome("one", Verdict("loaded"), {c: Verdict("proved") for c in ("TP2", "PP2", "DP2")})
REFUSED = attrs.evolve(
    PROVED, model_type="two", plans={**PROVED.plans, "TP2": Verdict("refused", "rule: no | rule")}
)
WRONG = Outcome("three", Verdict("wrong", "logits are off by 0.5 at 2 x 5"))
NOT_RUN = Outcome("four", Verdict("not counted", "ValueError: an image is needed"))
ALL = (PROVED, REFUSED, WRONG, NOT_RUN)


def test_a_configuration_shrinks_by_what_its_fields_count():
    default = {
        "hidden_size": 4096, "num_hidden_layers": 6, "num_key_value_heads": 8,
        "vocab_size": 32000, "bos_token_id": 100257, "rms_norm_eps": 1e-6,
        "layer_types": ["near", "near", "far", "near", "near", "far"],
    }  # fmt: skip
    assert next(tiny_contents(default, "")) == {
        "hidden_size": 64, "num_hidden_layers": 4, "num_key_value_heads": 2,
        "vocab_size": 96, "bos_token_id": 1, "rms_norm_eps": 1e-6,
        "layer_types": ["near", "far", "near", "far"],
    }  # fmt: skip


def test_lists_of_layer_numbers_are_cut_with_the_layers():
    default = {"num_hidden_layers": 5, "hybrid_layer_ids": [2, 4]}
    small = next(tiny_contents(default, ""))
    assert small == {"num_hidden_layers": 4, "hybrid_layer_ids": [1, 3]}


def test_a_sample_runs_in_float64():
    small = sample("llama")
    assert [tuple(answer.shape) for answer in small.answers] == [(2, 5, 96), (1, 11, 96)]
    assert all(answer.dtype is torch.float64 for answer in small.answers)


def test_a_type_that_transformers_does_not_run_is_not_counted():
    with pytest.raises(NotRunnableError, match="dropout"):
        sample("musicgen")


def test_a_model_is_loaded_compared_and_proved():
    *_, before, last = examine("gpt2", ["TP2", "EP2"])
    assert last == attrs.evolve(before, finished=True)
    assert last.loaded
    assert last.plans == {"TP2": Verdict("proved")}


@pytest.mark.slow
def test_a_survey_stops_what_takes_too_long():
    found = []
    survey(["llama"], ["TP2"], Limits(workers=1, seconds=0.1), found.append)
    assert [outcome.loading.state for outcome in found] == ["unfinished"]


def test_outcomes_are_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    for outcome in ALL:
        add_outcome(path, outcome)
    assert list(read_outcomes(path).values()) == list(ALL)
    path.write_text("{}")
    with pytest.raises(ParframeError, match="does not hold results of coverage"):
        read_outcomes(path)


def test_shares_are_of_what_can_be_counted():
    sums = totals(ALL)
    assert (sums.types, sums.countable, sums.loaded, sums.proved, sums.defects) == (4, 3, 2, 1, 1)
    assert (sums.share_loaded, sums.share_proved) == (2 / 3, 1 / 2)


def test_the_page_tells_every_reason():
    text = page(ALL)
    assert "| `one` | loaded | proved | proved | proved |" in text
    assert "| `two` | TP2 | refused: rule: no \\| rule |" in text
    assert "| `four` | not counted | ValueError: an image is needed |" in text


def test_the_command_keeps_results_and_writes_the_page(call, tmp_path):
    results, output = tmp_path / "results.jsonl", tmp_path / "page.md"
    add_outcome(results, attrs.evolve(PROVED, model_type="llama"))
    told = call("coverage", "--only", "llama", "--results", results, "--output", output, "--json")
    assert told.code == 0
    assert told.json["totals"]["share_proved"] == 1.0
    assert "`llama`" in output.read_text()


def test_a_wrong_number_is_an_error(call, tmp_path):
    results = tmp_path / "results.jsonl"
    add_outcome(results, attrs.evolve(WRONG, model_type="llama"))
    told = call("coverage", "--only", "llama", "--results", results)
    assert told.code == 34
    assert "llama loading: wrong, logits are off by 0.5 at 2 x 5" in told.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (
            ("--only", "lama"),
            "'lama' is not a type of causal language model (did you mean 'llama'?)",
        ),
        (("--composites", "TP2,2TP"), "composite"),
    ],
)
def test_a_mistake_is_told_before_the_work(call, arguments, what):
    told = call("coverage", *arguments)
    assert told.code != 0
    assert what in told.err


def test_every_type_of_transformers_is_surveyed():
    assert {"llama", "gpt2", "mamba"} <= set(model_types())
    assert json.dumps(model_types())

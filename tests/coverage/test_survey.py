"""The survey of models: evaluation, outcomes, the file of results and the page."""

import json

import attrs
import pytest
import torch

from parframe.coverage import Limits, Outcome, Verdict, compute_totals, render_page, survey
from parframe.coverage.evaluation import evaluate
from parframe.coverage.outcome import add_outcome, read_outcomes
from parframe.coverage.reference_model import NotRunnableError, build_reference, model_types
from parframe.coverage.small_config import small_configs
from parframe.errors import ParframeError

VERIFIED = Outcome(
    "one", Verdict("loaded"), {c: Verdict("verified") for c in ("TP2", "PP2", "DP2")}
)
REFUSED = attrs.evolve(
    VERIFIED,
    model_type="two",
    plans={**VERIFIED.plans, "TP2": Verdict("refused", "rule: no | rule")},
)
WRONG = Outcome("three", Verdict("wrong", "logits differ by 0.5 at 2 x 5"))
NOT_RUN = Outcome("four", Verdict("not counted", "ValueError: an image is needed"))
ALL = (VERIFIED, REFUSED, WRONG, NOT_RUN)


def test_a_configuration_shrinks_by_what_its_fields_count():
    default = {
        "hidden_size": 4096, "num_hidden_layers": 6, "num_key_value_heads": 8,
        "vocab_size": 32000, "bos_token_id": 100257, "rms_norm_eps": 1e-6,
        "layer_types": ["near", "near", "far", "near", "near", "far"],
    }  # fmt: skip
    assert next(small_configs(default, "")) == {
        "hidden_size": 64, "num_hidden_layers": 4, "num_key_value_heads": 2,
        "vocab_size": 96, "bos_token_id": 1, "rms_norm_eps": 1e-6,
        "layer_types": ["near", "far", "near", "far"],
    }  # fmt: skip


def test_lists_of_layer_numbers_are_cut_with_the_layers():
    default = {"num_hidden_layers": 5, "hybrid_layer_ids": [2, 4]}
    small = next(small_configs(default, ""))
    assert small == {"num_hidden_layers": 4, "hybrid_layer_ids": [1, 3]}


def test_a_reference_model_runs_in_float64():
    reference = build_reference("llama")
    assert [tuple(logits.shape) for logits in reference.logits] == [(2, 5, 96), (1, 11, 96)]
    assert all(logits.dtype is torch.float64 for logits in reference.logits)


def test_a_type_that_transformers_does_not_run_is_not_counted():
    with pytest.raises(NotRunnableError, match="dropout"):
        build_reference("musicgen")


def test_a_model_is_loaded_compared_and_verified():
    *_, before, last = evaluate("gpt2", ["TP2", "EP2"])
    assert last == attrs.evolve(before, finished=True)
    assert last.loaded
    assert last.plans == {"TP2": Verdict("verified")}


@pytest.mark.slow
def test_a_survey_stops_a_process_at_its_time_limit():
    outcomes = []
    survey(["llama"], ["TP2"], Limits(workers=1, seconds=0.1), outcomes.append)
    assert [outcome.loading.state for outcome in outcomes] == ["unfinished"]


def test_outcomes_are_stored(tmp_path):
    path = tmp_path / "results.jsonl"
    for outcome in ALL:
        add_outcome(path, outcome)
    assert list(read_outcomes(path).values()) == list(ALL)


@pytest.mark.parametrize("content", [{}, attrs.asdict(Outcome("one", Verdict("no such state")))])
def test_a_file_of_other_contents_is_refused(tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(content))
    with pytest.raises(ParframeError, match="is not a file of results of the survey"):
        read_outcomes(path)


def test_shares_are_of_what_can_be_counted():
    totals = compute_totals(ALL)
    assert (totals.types, totals.countable, totals.loaded) == (4, 3, 2)
    assert (totals.verified, totals.defects) == (1, 1)
    assert (totals.share_loaded, totals.share_verified) == (2 / 3, 1 / 2)


def test_the_page_has_every_reason():
    text = render_page(ALL)
    assert "| `one` | loaded | verified | verified | verified |" in text
    assert "| `two` | TP2 | refused: rule: no \\| rule |" in text
    assert "| `four` | not counted | ValueError: an image is needed |" in text


def test_the_command_reads_results_and_writes_the_page(call, tmp_path):
    results, output = tmp_path / "results.jsonl", tmp_path / "page.md"
    add_outcome(results, attrs.evolve(VERIFIED, model_type="llama"))
    result = call("coverage", "--only", "llama", "--results", results, "--output", output, "--json")
    assert result.code == 0
    assert result.json["totals"]["share_verified"] == 1.0
    assert "`llama`" in output.read_text()


def test_a_wrong_number_is_an_error(call, tmp_path):
    results = tmp_path / "results.jsonl"
    add_outcome(results, attrs.evolve(WRONG, model_type="llama"))
    result = call("coverage", "--only", "llama", "--results", results)
    assert result.code == 34
    assert "llama loading: wrong, logits differ by 0.5 at 2 x 5" in result.err


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
def test_a_wrong_option_is_an_error_before_the_survey(call, arguments, what):
    result = call("coverage", *arguments)
    assert result.code != 0
    assert what in result.err


def test_every_type_of_transformers_is_surveyed():
    assert {"llama", "gpt2", "mamba"} <= set(model_types())
    assert json.dumps(model_types())

import json

import pytest
from plan_assertions import STORIES, needs_stories

FEW = ("--prompt-tokens", 4, "--new-tokens", 6, "--no-compile")


@needs_stories
def test_model_on_two_devices_is_measured_against_transformers(call):
    result = call(
        "bench", STORIES, "--parallel", "TP2", *FEW, "--batch", 2,
        "--against", "transformers", "--json",
    )  # fmt: skip
    facts = json.loads(result.out)
    assert result.code == 0
    for name in ("parframe", "transformers"):
        figure = facts[name]
        assert 0 < figure["tpot_p10_ms"] <= figure["tpot_ms"] <= figure["tpot_p90_ms"]
        per_user = figure["tokens_per_second_per_user"]
        assert figure["output_tokens_per_second"] == pytest.approx(2 * per_user)
    ratio = facts["parframe"]["tpot_ms"] / facts["transformers"]["tpot_ms"]
    assert facts["tpot_ratio"] == ratio
    assert any(sent["bytes"] for sent in facts["communication"])
    assert facts["memory"]["most"] > 0


@needs_stories
def test_metrics_are_printed(call):
    result = call("bench", STORIES, *FEW, "--weights", "random")
    assert result.code == 0
    assert "TPOT, median (ms)" in result.out
    assert "Memory per device" in result.out


@needs_stories
def test_transformers_cannot_have_random_weights(call):
    result = call("bench", STORIES, *FEW, "--weights", "random", "--against", "transformers")
    assert result.err.startswith("error[usage] parframe bench --against: transformers needs")

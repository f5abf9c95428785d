"""Specs with prompts are verified, then run in real processes."""

import json
from pathlib import Path

import texts

SPEC = Path(__file__).parents[2] / "specs" / "run.toml"


def test_apply_runs_the_prompts_of_a_spec(call, tmp_path):
    found = call("apply", str(SPEC), "--output", str(tmp_path / "plan"), "--json")
    facts = json.loads(found.out)
    assert facts["verify"]["ok"]
    assert facts["run"]["processes"] == 4
    assert [len(one["tokens"]) for one in facts["run"]["completions"]] == [8, 8]


def test_text_prompt_for_a_model_without_a_tokenizer_is_refused(call, tmp_path):
    spec = tmp_path / "spec.toml"
    text = SPEC.read_text().replace("[[1, 15, 200], [7, 7, 7, 7, 42]]", '["Once upon a time"]')
    spec.write_text(text)
    found = call("apply", str(spec))
    assert found.code != 0
    assert "run.prompts" in found.err
    assert "use lists of token IDs" in found.err


def test_generate_prints_the_tokens_of_transformers(call, tmp_path):
    folder = texts.folder_of("llama", tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"tokens": [5, 9, 70]}\n')
    found = call(
        "generate", str(folder), "--parallel", "TP2", "--prompt-file", str(prompts),
        "--max-new-tokens", "6", "--json",
    )  # fmt: skip
    (expected,) = texts.continued(folder, [[5, 9, 70]], 6)
    assert json.loads(found.out)["tokens"] == expected

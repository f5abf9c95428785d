import json

import handwritten
import models
import pytest
import torch
from safetensors.torch import load_file

import parframe
from parframe.plan import plan_digest
from parframe.weights import read_state_dict, read_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = models.tiny_model("llama").float()
    made.config.dtype = "float32"
    made.save_pretrained(folder)
    return folder


def test_sharded_model_is_plan_and_weights_folder(call, model, tmp_path):
    out = tmp_path / "out"
    result = call(
        "shard", model, "--parallel", "DP2TP2", "-o", out, "--dtype", "bfloat16", "--json"
    )
    assert (result.code, result.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "plan.json", "rank-00000.safetensors", "rank-00001.safetensors", "shards.json",
    ]  # fmt: skip
    plan = parframe.load_plan(out)
    assert result.json["plan"] == plan_digest(plan)
    assert result.json["files"] == ["rank-00000.safetensors", "rank-00001.safetensors"] * 2
    whole = read_state_dict(plan.graph, model, torch.bfloat16)
    for name, part in plan.weights(3).items():
        assert torch.equal(read_weights(plan, 3, out)[name], part.take(whole[part.whole]))


def test_plan_is_sharded_with_weights_of_its_model_or_of_the_option(call, model, tmp_path):
    parframe.partition(parframe.load(model), "PP2").save(tmp_path / "plan")
    for number, more in enumerate(([], ["--weights", model], ["--weights", "random"])):
        result = call("shard", tmp_path / "plan", "-o", tmp_path / str(number), *more)
        assert result.code == 0, result.err
        assert result.out.startswith("Shards  2 files, ")
        assert max(map(len, result.out.splitlines()[:-1])) <= 80
    one, two, drawn = (load_file(tmp_path / name / "rank-00001.safetensors") for name in "012")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], drawn["lm_head.weight"])


def test_generate_reads_shards(call, model, tmp_path):
    out, prompts = tmp_path / "out", tmp_path / "prompts.jsonl"
    assert call("shard", model, "--parallel", "TP2", "-o", out).code == 0
    prompts.write_text('{"tokens": [5, 17, 9]}')
    prompt_options = ("--prompt-file", prompts, "--max-new-tokens", "4")
    for source in ([out], [model, "--parallel", "TP2", "--weights", out]):
        result = call("generate", *source, *prompt_options)
        assert (result.code, result.err) == (0, "")
        assert result.out == call("generate", model, *prompt_options).out


def test_weights_run_in_the_dtype_of_the_option_for_every_stored_dtype(call, model, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"tokens": [5, 17, 9]}')
    prompt_options = ("--prompt-file", prompts, "--max-new-tokens", "4", "--dtype", "bfloat16")
    assert call("shard", model, "--parallel", "TP2", "-o", tmp_path / "one").code == 0
    assert (
        call("shard", model, "--parallel", "TP2", "-o", tmp_path / "two", *prompt_options[-2:]).code
        == 0
    )
    expected = call("generate", model, *prompt_options, "--executor", "simulate")
    assert expected.code == 0, expected.err
    for source in ([model, "--parallel", "TP2"], [tmp_path / "two"]):
        result = call("generate", *source, *prompt_options)
        assert (result.code, result.err, result.out) == (0, "", expected.out)
    result = call("generate", tmp_path / "one", *prompt_options)
    assert "pass the model instead of its plan" in result.err


def test_pickled_weights_run_with_the_option(call, model, tmp_path):
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    torch.save(load_file(model / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "prompts.jsonl").write_text('{"tokens": [5, 17, 9]}')
    prompt_options = ("--prompt-file", tmp_path / "prompts.jsonl", "--max-new-tokens", "4")
    assert "has no .safetensors" in call("generate", tmp_path, *prompt_options).err
    result = call("generate", tmp_path, *prompt_options, "--pickled")
    assert (result.code, result.out) == (0, call("generate", model, *prompt_options).out)


REFUSED = {
    "no strategy": (lambda model, tmp: [model], "give --parallel"),
    "two strategies": (
        lambda model, tmp: [tmp / "plan", "--parallel", "TP2"],
        "already has a composite",
    ),
    "no weights": (lambda model, tmp: [tmp / "plan"], "give --weights"),
    "other weights": (lambda model, tmp: [tmp / "plan", "--weights", model], "up.weight is"),
    "no model": (lambda model, tmp: [tmp / "none", "--parallel", "TP2"], "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_failed_shard_prints_one_error_and_leaves_no_files(call, model, tmp_path, case):
    handwritten.tensor_parallel(2).save(tmp_path / "plan")
    arguments, expected = REFUSED[case]
    result = call("shard", *arguments(model, tmp_path), "-o", tmp_path / "out", "--json")
    assert result.code != 0
    assert expected in result.json["error"]["what"] + result.json["error"]["hint"]
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_existing_folder_is_not_changed(call, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.json").write_text(json.dumps(1))
    result = call("shard", model, "--parallel", "TP2", "-o", tmp_path / "out")
    assert result.code == 40
    assert "already exists" in result.err
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.json"]

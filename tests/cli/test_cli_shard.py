import json

import handmade
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


def test_a_model_is_sharded_and_its_folder_is_plan_and_weights(call, model, tmp_path):
    out = tmp_path / "out"
    told = call("shard", model, "--parallel", "DP2TP2", "-o", out, "--dtype", "bfloat16", "--json")
    assert (told.code, told.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "plan.json", "rank-00000.safetensors", "rank-00001.safetensors", "shards.json",
    ]  # fmt: skip
    plan = parframe.load_plan(out)
    assert told.json["plan"] == plan_digest(plan)
    assert told.json["files"] == ["rank-00000.safetensors", "rank-00001.safetensors"] * 2
    whole = read_state_dict(plan.graph, model, torch.bfloat16)
    for name, part in plan.weights(3).items():
        assert torch.equal(read_weights(plan, 3, out)[name], part.take(whole[part.whole]))


def test_a_plan_is_sharded_with_the_weights_beside_its_model_or_given(call, model, tmp_path):
    parframe.partition(parframe.load(model), "PP2").save(tmp_path / "plan")
    for number, more in enumerate(([], ["--weights", model], ["--weights", "random"])):
        told = call("shard", tmp_path / "plan", "-o", tmp_path / str(number), *more)
        assert told.code == 0, told.err
        assert told.out.startswith("Shards  2 files, ")
        assert max(map(len, told.out.splitlines()[:-1])) <= 80
    one, two, drawn = (load_file(tmp_path / name / "rank-00001.safetensors") for name in "012")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], drawn["lm_head.weight"])


def test_shards_are_what_generate_begins_with(call, model, tmp_path):
    out, prompts = tmp_path / "out", tmp_path / "prompts.jsonl"
    assert call("shard", model, "--parallel", "TP2", "-o", out).code == 0
    prompts.write_text('{"tokens": [5, 17, 9]}')
    asked = ("--prompt-file", prompts, "--max-new-tokens", "4")
    for source in ([out], [model, "--parallel", "TP2", "--weights", out]):
        told = call("generate", *source, *asked)
        assert (told.code, told.err) == (0, "")
        assert told.out == call("generate", model, *asked).out


def test_weights_are_run_in_the_dtype_that_is_asked_for_however_they_are_stored(
    call, model, tmp_path
):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"tokens": [5, 17, 9]}')
    asked = ("--prompt-file", prompts, "--max-new-tokens", "4", "--dtype", "bfloat16")
    assert call("shard", model, "--parallel", "TP2", "-o", tmp_path / "one").code == 0
    assert call("shard", model, "--parallel", "TP2", "-o", tmp_path / "two", *asked[-2:]).code == 0
    expected = call("generate", model, *asked, "--executor", "simulate")
    assert expected.code == 0, expected.err
    for source in ([model, "--parallel", "TP2"], [tmp_path / "two"]):
        told = call("generate", *source, *asked)
        assert (told.code, told.err, told.out) == (0, "", expected.out)
    told = call("generate", tmp_path / "one", *asked)
    assert "pass the model instead of its plan" in told.err


def test_a_pickle_begins_a_run_where_that_is_asked_for(call, model, tmp_path):
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    torch.save(load_file(model / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "prompts.jsonl").write_text('{"tokens": [5, 17, 9]}')
    asked = ("--prompt-file", tmp_path / "prompts.jsonl", "--max-new-tokens", "4")
    assert "has no .safetensors" in call("generate", tmp_path, *asked).err
    told = call("generate", tmp_path, *asked, "--pickled")
    assert (told.code, told.out) == (0, call("generate", model, *asked).out)


REFUSED = {
    "no strategy": (lambda model, tmp: [model], "give --parallel"),
    "two strategies": (lambda model, tmp: [tmp / "plan", "--parallel", "TP2"], "says that already"),
    "no weights": (lambda model, tmp: [tmp / "plan"], "give --weights"),
    "other weights": (lambda model, tmp: [tmp / "plan", "--weights", model], "up.weight is"),
    "no model": (lambda model, tmp: [tmp / "none", "--parallel", "TP2"], "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sharded_is_told_in_a_line_and_leaves_nothing(call, model, tmp_path, case):
    handmade.tensor_parallel(2).save(tmp_path / "plan")
    arguments, expected = REFUSED[case]
    told = call("shard", *arguments(model, tmp_path), "-o", tmp_path / "out", "--json")
    assert told.code != 0
    assert expected in told.json["error"]["what"] + told.json["error"]["hint"]
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_a_folder_that_is_there_is_not_touched(call, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.json").write_text(json.dumps(1))
    told = call("shard", model, "--parallel", "TP2", "-o", tmp_path / "out")
    assert told.code == 40
    assert "already exists" in told.err
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.json"]

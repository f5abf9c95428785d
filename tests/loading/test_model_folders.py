"""Model folders and configurations that are untrusted."""

import json
import os
import subprocess
import sys
import time

import models
import pytest
import torch
from safetensors.torch import save_file

from parframe.errors import ParframeError
from parframe.graph_json import dump_graph, write_graph
from parframe.loading import load
from parframe.loading.huggingface.computed_buffers import compute_buffers, move_to_cpu
from parframe.weights import read_state_dict
from parframe.weights.checkpoint_folder import weight_files


def folder(tmp_path, **changes):
    content = {**models.tiny_config("llama").to_dict(), **changes}
    (tmp_path / "config.json").write_text(json.dumps(content))
    return tmp_path


def test_a_folder_a_file_a_dict_and_a_configuration_give_one_graph(tmp_path):
    path = folder(tmp_path)
    config = models.tiny_config("llama")
    graphs = [load(path), load(path / "config.json"), load(config.to_dict()), load(config)]
    assert len({tuple(dump_graph(graph).partition('"inputs"')[2]) for graph in graphs}) == 1


def test_the_architecture_of_the_configuration_is_loaded(tmp_path):
    graph = load(folder(tmp_path, architectures=["LlamaModel"]))
    assert graph.outputs["$class"] == "BaseModelOutputWithPast"


REFUSED = {
    "remote code": ({"auto_map": {"AutoModel": "evil.Model"}}, "never run"),
    "remote code within": ({"rope_parameters": {"auto_map": {"a": "b"}}}, "never run"),
    "unknown model": ({"model_type": "lama"}, "did you mean 'llama'"),
    "model type that is no text": ({"model_type": 7}, "not a model type that transformers knows"),
    "class of another model": ({"architectures": ["BertModel"]}, "not a model of transformers"),
    "class that is no model": ({"architectures": ["LlamaConfig"]}, "not a model of transformers"),
    "class by path": ({"architectures": ["os.system"]}, "not a model of transformers"),
    "a billion layers": ({"num_hidden_layers": 10**9}, "more than the 10000"),
    "a number out of range": ({"vocab_size": 10**30}, "out of range"),
    "a hidden size of text": ({"hidden_size": "64"}, "error"),
    "no heads": ({"num_attention_heads": 0}, "error"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_configuration_is_refused_within_seconds(tmp_path, case):
    changes, message = REFUSED[case]
    start = time.monotonic()
    with pytest.raises(ParframeError, match=message) as caught:
        load(folder(tmp_path, **changes))
    assert caught.value.kind == "load"
    assert time.monotonic() - start < 20


def test_a_configuration_that_names_local_code_does_not_run_it(tmp_path):
    target = tmp_path / "executed"
    (tmp_path / "modeling_evil.py").write_text(f"open({str(target)!r}, 'w')\n")
    auto_map = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    with pytest.raises(ParframeError, match="never run"):
        load(folder(tmp_path, auto_map=auto_map, model_type="evil"))
    assert not target.exists()


FILES = {
    "empty": "",
    "a list": "[]",
    "not JSON": "{",
    "nested deep": "[" * 100_000,
    "neither": "{}",
}


@pytest.mark.parametrize("case", FILES)
def test_a_json_that_is_no_model_is_refused(tmp_path, case):
    path = tmp_path / "config.json"
    path.write_text(FILES[case])
    with pytest.raises(ParframeError):
        load(path)


@pytest.mark.parametrize("name", ["missing", "missing.json", "model.txt"])
def test_a_missing_path_is_refused(tmp_path, name):
    (tmp_path / "model.txt").write_text("text")
    with pytest.raises(ParframeError):
        load(tmp_path / name)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ParframeError, match=r"has no config\.json"):
        load(tmp_path)


def test_an_object_that_is_no_model_is_refused():
    with pytest.raises(ParframeError, match="is not a model, nor a path of one"):
        load(3)


@pytest.mark.parametrize(
    "file", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin", 3]
)
def test_an_index_that_points_outside_the_folder_is_refused(tmp_path, file):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": file}}))
    with pytest.raises(ParframeError, match=r"not a \.safetensors file of this folder") as caught:
        weight_files(tmp_path)
    assert caught.value.kind == "weights"


def test_weights_are_found_with_and_without_an_index(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "two.safetensors")
    expected = {"a": tmp_path / "one.safetensors", "b": tmp_path / "two.safetensors"}
    assert weight_files(tmp_path) == expected
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: p.name for name, p in expected.items()}}))
    assert weight_files(tmp_path) == expected
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(ParframeError, match=r"two\.safetensors is missing"):
        weight_files(tmp_path)


def test_a_folder_of_saved_weights_gives_the_models_weights(tmp_path):
    model = models.tiny_model("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    graph = load(tmp_path)
    found = read_state_dict(graph, tmp_path)
    for name, tensor in model.named_parameters():
        assert torch.equal(found[name], tensor)


def test_missing_and_misshapen_weights_are_all_listed(tmp_path):
    graph = load(models.tiny_config("llama"))
    weights = dict(models.tiny_model("llama").state_dict())
    del weights["lm_head.weight"]
    weights["model.norm.weight"] = torch.zeros(3)
    with pytest.raises(ParframeError) as caught:
        read_state_dict(graph, weights)
    assert caught.value.kind == "weights"
    assert "lm_head.weight is missing" in caught.value.what
    assert "model.norm.weight has the shape [3], not [64]" in caught.value.what


def test_random_weights_are_the_same_each_time_and_distinct():
    graph = load(models.resnet(), {"image": torch.zeros(2, 3, 16, 16, dtype=torch.float64)})
    one, two, other = read_state_dict(graph), read_state_dict(graph), read_state_dict(graph, seed=1)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name])
        assert not torch.equal(tensor, other[name])
        assert tensor.isfinite().all()
        assert tensor.unique().numel() == tensor.numel()
    assert (one["norm.running_var"] > 0).all()
    assert (one["stages.0.conv1.weight"] < 0).any()


def test_a_graph_is_loaded_from_json_without_torch(tmp_path):
    graph = load(models.mlp(), {"x": torch.zeros(2, 12, dtype=torch.float64)})
    path = tmp_path / "graph.json"
    write_graph(graph, path)
    assert load(path) == graph
    code = (
        "import sys, parframe.loading; graph = parframe.loading.load(sys.argv[1]);"
        "print('torch' in sys.modules, len(graph.calls))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, check=True, env={**os.environ},
    )  # fmt: skip
    assert result.stdout.split() == ["False", str(len(graph.calls))]


class Computes(torch.nn.Module):
    """Fills a buffer of a submodule, and leaves another one empty."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Module()
        self.inner.register_buffer("scale", torch.empty(3), persistent=False)
        self.inner.register_buffer("unknown", torch.empty(3), persistent=False)

    def _init_weights(self, module):
        if isinstance(module, Computes):
            module.inner.scale.copy_(torch.arange(3.0))


def test_a_model_may_fill_the_buffers_of_its_submodules():
    with torch.device("meta"):
        model = Computes()
    data = compute_buffers(model)
    assert {name: content.tolist() for name, content in data.items()} == {
        "inner.scale": [0.0, 1.0, 2.0]
    }
    assert model.inner.scale.is_meta
    assert move_to_cpu(model, data) == {"inner.unknown"}


def test_a_class_may_be_named_that_transformers_maps_the_configuration_to():
    config = {**models.tiny_config("llama").to_dict(), "model_type": "internlm3"}
    graph = load({**config, "architectures": ["LlamaForCausalLM"], "head_dim": 8})
    assert graph.source == "LlamaForCausalLM"

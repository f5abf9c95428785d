"""Malformed files, indexes and pickles are refused by name."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

import parframe
from parframe.errors import ParframeError
from parframe.weights import (
    open_weights,
    read_weights,
)
from parframe.weights.safetensors_header import read_header

NORM = "model.norm.weight"


def malformed_header(path):
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def overlapping(path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def wrong_size(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


FILE_FAULTS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "malformed header": malformed_header,
    "overlapping offsets": overlapping,
    "offsets that do not fit the shape": wrong_size,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("case", FILE_FAULTS)
def test_a_malformed_file_is_named(changed_checkpoint, tmp_path, case):
    plan, folder = changed_checkpoint(lambda content: None)
    FILE_FAULTS[case](tmp_path / "model.safetensors")
    with pytest.raises(ParframeError, match=r"model\.safetensors") as caught:
        read_weights(plan, 0, folder)
    assert caught.value.kind == "weights"


def test_a_file_that_is_truncated_during_the_read_is_named(changed_checkpoint, tmp_path):
    plan, folder = changed_checkpoint(lambda content: None)
    opened = open_weights(plan.graph, folder)
    os.truncate(tmp_path / "model.safetensors", 5000)
    with pytest.raises(ParframeError, match="the file ends too early"):
        read_weights(plan, 0, opened)


def test_an_index_with_an_extra_tensor_is_refused(changed_checkpoint):
    plan, folder = changed_checkpoint(lambda content: None)
    names = [*read_header(folder / "model.safetensors").tensors, "phantom"]
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ParframeError, match="that the index names, such as 'phantom'"):
        read_weights(plan, 0, folder)


def test_two_files_with_one_tensor_are_refused_without_an_index(changed_checkpoint, tmp_path):
    plan, folder = changed_checkpoint(lambda content: None)
    save_file({NORM: torch.zeros(64)}, tmp_path / "z.safetensors")
    with pytest.raises(ParframeError, match=r"which is also in model\.safetensors"):
        read_weights(plan, 0, folder)


def test_a_pickle_is_read_only_on_request_and_never_executed(saved, tmp_path):
    _, graph, whole = saved("llama")
    plan = parframe.partition(graph, "TP2")
    weights = {n: t for n, t in whole.items() if graph.parameters[n].data is None}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ParframeError, match="pickled=True"):
        read_weights(plan, 0, tmp_path)
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        found, expected = read_weights(plan, 0, path, pickled=True), read_weights(plan, 0, weights)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    torch.save({"a": pytest.raises}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ParframeError, match="cannot be read as tensors alone"):
        read_weights(plan, 0, tmp_path, pickled=True)
    (tmp_path / "pytorch_model.bin").write_bytes(b"none")
    with pytest.raises(ParframeError, match="cannot be read as tensors alone"):
        read_weights(plan, 0, tmp_path, pickled=True)

"""Fixtures of checkpoints in folders, and of the bytes that are read from them."""

import os

import models
import pytest
from safetensors.torch import load_file, save_file

import parframe
from parframe.weights import file_reader, read_state_dict

CHECKPOINTS = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "fused qkv by heads": ("gpt_neox", {}),
    "fused qkv and gate by blocks": ("phi3", {}),
    "transposed fused qkv": ("gpt2", {}),
    "a tensor for each expert": ("mixtral", {}),
    "experts, some shared": ("deepseek_v3", {}),
    "experts interleaved, with biases": ("gpt_oss", {}),
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Return a function that saves a checkpoint once: its folder, graph, and weights by name."""
    known = {}

    def save(case):
        if case not in known:
            name, changes = CHECKPOINTS[case]
            model = models.tiny_model(name, **changes).float()
            model.config.dtype = "float32"
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder, max_shard_size="200KB")
            graph = parframe.load(folder)
            known[case] = folder, graph, read_state_dict(graph, model)
        return known[case]

    return save


@pytest.fixture
def changed_checkpoint(saved, tmp_path):
    """Return a function that saves the Llama's weights after a change; a plan and the folder."""

    def save(change):
        folder, graph, _ = saved("llama")
        files = folder.glob("*.safetensors")
        content = {n: t for file in files for n, t in load_file(file).items()}
        change(content)
        save_file(content, tmp_path / "model.safetensors")
        return parframe.partition(graph, "TP2"), tmp_path

    return save


@pytest.fixture
def bytes_read(monkeypatch):
    """Count the bytes of tensors that are read, in a list of one number."""
    total = [0]
    preadv = os.preadv

    def counting(*arguments):
        count = preadv(*arguments)
        total[0] += count
        return count

    monkeypatch.setattr(file_reader.os, "preadv", counting)
    return total

"""Saved exports are read without running anything in them."""

import json
import pickle
import zipfile

import attrs
import models
import pytest
import torch

from parframe.errors import ParframeError
from parframe.graph_json import dump_graph
from parframe.loading import load
from parframe.simulation.reference import run_graph
from parframe.weights import read_state_dict

DYNAMIC = torch.export.Dim.DYNAMIC


def saved(path, module, inputs):
    dynamic = {name: {0: DYNAMIC} for name in inputs}
    exported = torch.export.export(module, (), inputs, dynamic_shapes=dynamic, strict=False)
    torch.export.save(exported, path)
    return path


def changed(path, change):
    """Rewrite the files of an archive; ``change(name, content)`` returns the new content."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            new = change(name, content)
            if new is not None:
                archive.writestr(name, new)
    return path


def with_model(path, edit):
    def change(name, content):
        if "/models/" not in name:
            return content
        model = json.loads(content)
        edit(model)
        return json.dumps(model).encode()

    return changed(path, change)


@pytest.mark.parametrize("name", models.PLAIN)
def test_an_archive_gives_the_graph_of_its_module(tmp_path, name):
    make, shapes = models.PLAIN[name]
    module = make()
    inputs = {k: torch.randn(s, dtype=torch.float64) for k, s in shapes.items()}
    graph = load(saved(tmp_path / "model.pt2", module, inputs))
    assert dump_graph(attrs.evolve(graph, source="")) == dump_graph(
        attrs.evolve(load(module, inputs), source="")
    )


class Sizes(torch.nn.Module):
    def forward(self, x):
        rows = x.shape[0]
        with torch.no_grad():
            wave = x.sin()
        index = torch.arange(rows * 2 + 1, device=x.device)[: rows // 2]
        picked = x[:, torch.tensor([1, 0])]
        return wave.view(rows, 2, -1).flatten(1), (index, picked, x.new_zeros(rows * 3))


def test_sizes_constants_and_wrapped_parts_are_read(tmp_path):
    module = Sizes()
    graph = load(saved(tmp_path / "model.pt2", module, {"x": torch.randn(4, 4)}))
    x = torch.randn(7, 4)
    first, (index, picked, zeros) = run_graph(graph, {"x": x}, read_state_dict(graph))
    expected_first, (expected_index, expected_picked, expected_zeros) = module(x)
    assert torch.equal(first, expected_first)
    assert torch.equal(index, expected_index)
    assert torch.equal(picked, expected_picked)
    assert torch.equal(zeros, expected_zeros)


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.fixture
def archive(tmp_path):
    return saved(tmp_path / "model.pt2", models.mlp(), {"x": torch.zeros(3, 12).double()})


def test_pickles_in_an_archive_are_never_loaded(tmp_path, archive):
    target = tmp_path / "executed"
    payload = pickle.dumps(Payload(target))
    changed(archive, lambda name, content: content if "/models/" in name else payload)
    load(archive)
    assert not target.exists()


def test_a_pickled_constant_is_refused(tmp_path):
    target = tmp_path / "executed"
    path = saved(tmp_path / "model.pt2", Sizes(), {"x": torch.randn(4, 4)})

    def change(name, content):
        if "/constants/" not in name:
            return content
        if name.endswith(".json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return pickle.dumps(Payload(target))

    with pytest.raises(ParframeError, match="never read"):
        load(changed(path, change))
    assert not target.exists()


def test_code_in_a_size_is_refused(tmp_path):
    target = tmp_path / "executed"
    path = saved(tmp_path / "model.pt2", Sizes(), {"x": torch.randn(4, 4)})
    code = f"__import__('pathlib').Path({str(target)!r}).touch()"

    def edit(model):
        for value in model["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = code

    with pytest.raises(ParframeError, match="uses a function that sizes do not support"):
        load(with_model(path, edit))
    assert not target.exists()


@pytest.mark.parametrize(
    "target",
    ["os.system", "torch.ops.os.system.default", "torch.ops.load_library.x.y", "torch.load"],
)
def test_unknown_operators_are_refused(archive, target):
    def edit(model):
        model["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(ParframeError) as caught:
        load(with_model(archive, edit))
    assert caught.value.kind == "load"


def test_an_archive_of_torch_save_is_refused(tmp_path):
    path = tmp_path / "weights.pt2"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ParframeError, match="0 models in JSON"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04truncated"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(ParframeError, match="cannot be read"):
        load(path)


def test_a_truncated_archive_is_refused(archive):
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ParframeError) as caught:
        load(archive)
    assert caught.value.kind == "load"


@pytest.mark.parametrize("key", ["graph_module"])
def test_a_model_without_its_parts_is_refused(archive, key):
    with pytest.raises(ParframeError, match=r"not an archive of torch\.export"):
        load(with_model(archive, lambda model: model.pop(key)))

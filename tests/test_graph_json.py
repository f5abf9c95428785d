"""Graphs as JSON text and back; invalid text is refused."""

import json
import math

import models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.graph import Ref
from parframe.graph_json import (
    decode_arg,
    dump_graph,
    encode_arg,
    parse_graph,
    read_graph,
    write_graph,
)
from parframe.layout import Join, Span
from parframe.loading import load
from parframe.sizes import floordiv, symbol


@pytest.fixture(scope="module")
def graph():
    return load(models.resnet(), {"image": torch.zeros(2, 3, 16, 16, dtype=torch.float64)})


def test_a_graph_reads_back_unchanged(graph):
    assert parse_graph(dump_graph(graph)) == graph
    assert dump_graph(parse_graph(dump_graph(graph))) == dump_graph(graph)


@pytest.mark.parametrize("name", ["llama", "bloom", "vit"])
def test_a_transformer_reads_back_unchanged(name):
    graph = load(models.tiny_config(name))
    assert parse_graph(dump_graph(graph)) == graph


def test_loading_twice_gives_the_same_text():
    config = models.tiny_config("gemma2")
    assert dump_graph(load(config)) == dump_graph(load(config))


ROWS = symbol("batch")
sizes = st.integers(-9, 9) | st.sampled_from(
    [ROWS, 2 * ROWS + 1, floordiv(ROWS, 2), ROWS * symbol("sequence"), ROWS % 3]
)
spans = st.builds(Span, sizes, sizes, sizes)
factors = spans | st.builds(
    lambda parts: Join(tuple(tuple(part) for part in parts)),
    st.lists(st.lists(spans, max_size=2), max_size=2),
)
arguments = st.recursive(
    st.none()
    | st.booleans()
    | sizes
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.builds(Ref, st.text(max_size=5))
    | factors,
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(arguments)
def test_arguments_read_back_unchanged(argument):
    text = json.dumps(encode_arg(argument), allow_nan=False)
    back = decode_arg(json.loads(text))
    assert back == argument
    assert type(back) is type(argument)


def test_nan_reads_back():
    assert math.isnan(decode_arg(encode_arg(math.nan)))


def edited(graph, edit):
    content = json.loads(dump_graph(graph))
    edit(content)
    return json.dumps(content)


def first_operator(content):
    return content["blocks"]["head"]["operators"][0]


EDITS = {
    "newer": lambda c: c.update(schema=99),
    "older": lambda c: c.update(schema=0),
    "no schema": lambda c: c.pop("schema"),
    "schema of text": lambda c: c.update(schema="1"),
    "true schema": lambda c: c.update(schema=True),
    "no blocks": lambda c: c.pop("blocks"),
    "blocks of a list": lambda c: c.update(blocks=[]),
    "calls of a dict": lambda c: c.update(calls={}),
    "call too short": lambda c: c["calls"].append(["a", "head"]),
    "call of numbers": lambda c: c["calls"].append(["a", "head", [1], [], []]),
    "unknown block": lambda c: c["calls"].append(["a", "nowhere", [], [], []]),
    "undefined input": lambda c: c["calls"][1].__setitem__(2, ["nothing"]),
    "undefined output": lambda c: c.update(outputs="nothing"),
    "output of a number": lambda c: c.update(outputs=3),
    "size that is code": lambda c: c["inputs"]["image"]["tensor"].append("__import__('os')"),
    "size of a float": lambda c: c["inputs"]["image"]["tensor"].append(1.5),
    "true size": lambda c: c["inputs"]["image"]["tensor"].append(True),
    "unknown dtype": lambda c: c["inputs"]["image"]["tensor"].__setitem__(0, "float33"),
    "axes of another rank": lambda c: c["inputs"]["image"].update(axes=[]),
    "argument of a kind unknown": lambda c: first_operator(c)["args"].update(a={"code": "x"}),
    "argument of two kinds": lambda c: first_operator(c)["args"].update(
        a={"ref": "x", "size": "1"}
    ),
    "size argument that is code": lambda c: first_operator(c)["args"].update(a={"size": "f()"}),
    "span too short": lambda c: first_operator(c)["args"].update(a={"span": [1]}),
    "undefined argument": lambda c: first_operator(c)["args"].update(a={"ref": "nothing"}),
    "output defined twice": lambda c: c["blocks"]["head"]["operators"].append(first_operator(c)),
    "output without shape": lambda c: c["blocks"]["head"]["tensors"].pop("conv2d"),
    "target of a number": lambda c: first_operator(c).update(target=3),
    "state of nothing": lambda c: c["blocks"]["head"].update(states={"a": "nothing"}),
    "data of a number": lambda c: c["parameters"]["stem.weight"].update(data=3),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_invalid_graph_is_refused(graph, case):
    with pytest.raises(ParframeError) as caught:
        parse_graph(edited(graph, EDITS[case]))
    assert caught.value.kind == "graph"


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "[" * 100_000, '{"schema": NaN}'])
def test_text_that_is_no_graph_is_refused(text):
    with pytest.raises(ParframeError) as caught:
        parse_graph(text)
    assert caught.value.kind == "graph"


def test_a_truncated_graph_is_refused(graph):
    text = dump_graph(graph)
    for stop in range(0, len(text) - 2, len(text) // 7):
        with pytest.raises(ParframeError):
            parse_graph(text[:stop])


def test_arguments_nested_too_deep_are_refused():
    value = 1
    for _ in range(60):
        value = [value]
    with pytest.raises(ParframeError, match="nested too deep"):
        decode_arg(value)


def test_a_file_is_written_to_a_temporary_file_and_renamed(graph, tmp_path):
    path = tmp_path / "graph.json"
    write_graph(graph, path)
    assert read_graph(path) == graph
    assert [file.name for file in tmp_path.iterdir()] == ["graph.json"]


def test_a_failure_leaves_the_old_file_whole(graph, tmp_path, monkeypatch):
    path = tmp_path / "graph.json"
    path.write_text("old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(ParframeError, match="No space left") as caught:
        write_graph(graph, path)
    assert caught.value.kind == "output"
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["graph.json"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b""])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    path = tmp_path / "graph.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ParframeError):
        read_graph(path)

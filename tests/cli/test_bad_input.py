"""Whatever is given, the answer is one clear line, nothing runs, and nothing is written."""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import handwritten
import pytest
from command import contents, write_spec

from parframe.errors import KINDS

DEMO = """
output = "out"
[model]
kind = "demo"
[model.config]
model_type = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 2
num_attention_heads = 4
vocab_size = 32
"""


class Bomb:
    """An object that writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def spec_texts() -> Iterator[tuple[str, str, str, str]]:
    """A name, the text of a spec, the kind of the error, what it says."""
    tp = 'parallel = "TP2"\n'
    yield "unknown key", f'{tp}paralel = "TP2"', "spec", r"line 3, key 'paralel': unknown key"
    yield "unknown table", f"{tp}[memmory]\nbudget = 1", "spec", r"did you mean 'memory'\?"
    yield "a number for text", "parallel = 3", "spec", "line 2, key 'parallel': is 3"
    yield "text for a number", f'{tp}devices = "2"', "spec", "key 'devices': is '2'"
    yield "a list for a table", f"{tp}splits = [1]", "spec", "key 'splits'"
    yield "zero degree", 'parallel = "TP0"', "composite", "begins with 0"
    yield "negative degree", 'parallel = "TP-2"', "composite", "a sign"
    yield "huge degree", 'parallel = "TP99999999999"', "composite", "larger than"
    yield "huge mesh", 'parallel = "TP1000DP1000PP1000"', "mesh", "has 1000000000 devices"
    yield "zero on the mesh", "mesh = { tp = 0 }", "spec", "key 'mesh.tp': is 0"
    yield "malformed composite", 'parallel = "TP2+DP2"', "composite", "grammar: "
    yield "lower case", 'parallel = "tp2"', "composite", "write TP2"
    yield "a code twice", 'parallel = "TP2TP2"', "composite", "given twice"
    yield (
        "wrong devices",
        f"{tp}devices = 3",
        "mesh",
        "is 3, but the composite has 2 devices; set it to 2",
    )
    yield "unknown strategy", 'parallel = "QP2"', "strategy", "no strategy has the code 'QP'"
    yield "unknown axis", f'{tp}splits = {{ ffn = ["pp"] }}', "strategy", "no axis 'pp'"
    yield "unknown option", f"{tp}[strategies.tp]\nspeed = 1", "strategy", "no such option"
    yield "unknown dimension", f'{tp}splits = {{ fnn = ["tp"] }}', "partition", "'fnn'"
    yield "unknown plugin", f'{tp}plugins = ["no-such"]', "plugin", "no plugin of that name"
    yield "not TOML", "parallel = ", "spec", "is not TOML"
    yield "a path above", f'{tp}output = "../out"', "spec", "leaves the folder"
    yield "an absolute path", f'{tp}output = "/tmp/out"', "spec", "not relative"
    yield "a long path", f'{tp}output = "{"x" * 300}"', "spec", "too long"
    yield "a line in a path", f'{tp}output = "a\\nb"', "spec", "key 'output'"
    yield "foreign digits", 'parallel = "TP\u0662"', "composite", "not a plain digit"
    yield "a star", f'{tp}splits = {{ "*" = ["tp"] }}', "spec", "choose a name"
    yield "a home", f'{tp}output = "~/out"', "spec", "not relative"
    yield "an import string", f'{tp}[strategies.tp]\ncode = "os:system"', "spec", "names code"
    yield "an import", f"{tp}dtype = '__import__(\"os\")'", "spec", "names code"
    yield "1 MB", f"{tp}# {'x' * 2**20}", "spec", "longer than 256 KiB"
    yield "deep brackets", "mesh = " + "[" * 100_000, "spec", "nested deeper than 32"
    yield "deep keys", "a." * 100_000 + "b = 1", "spec", "nested deeper|longer than"
    yield "a huge number", f"{tp}devices = {'9' * 5000}", "spec", "cannot be read"
    yield "no devices to share", 'parallel = "SP"', "composite", "no code has a degree"
    yield "over budget", f'{tp}memory = {{ budget = "10B" }}', "memory", "the budget is"


def spec_files() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    """A name, what stands at the path of the spec, what the error says."""
    yield "missing", lambda path: None, "does not exist"
    yield "a directory", lambda path: path.mkdir(), "is not a file"
    yield "empty", lambda path: path.touch(), "is empty"
    yield "blank", lambda path: path.write_text("\n# nothing\n"), "is empty"
    yield "not UTF-8", lambda path: path.write_bytes(b"\xff\xfe\x00"), "byte 0 is not UTF-8"
    yield "a loop", lambda path: path.symlink_to(path), "does not exist|is not a file"


def refused(result, kind: str, what: str) -> None:
    """Assert that a command ended with an error of a kind, in one line, without a traceback."""
    assert result.code == KINDS[kind][0], result.err
    first, *rest = result.err.splitlines()
    assert first.startswith(f"error[{kind}] ")
    assert re.search(what, result.err), result.err
    assert first.count("; ") >= 1
    assert all(line.startswith("  ") for line in rest)  # the caret and grammar of a composite
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("text", "kind", "what"), [case[1:] for case in spec_texts()],
    ids=[case[0] for case in spec_texts()],
)  # fmt: skip
def test_a_wrong_spec_is_refused_and_nothing_is_written(call, tmp_path, text, kind, what):
    spec = write_spec(tmp_path, text)
    before = contents(tmp_path)
    refused(call("apply", spec, *(["--output", tmp_path / "o"] * ("../" not in text))), kind, what)
    assert contents(tmp_path) == before
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("make", "what"), [case[1:] for case in spec_files()], ids=[case[0] for case in spec_files()]
)
def test_a_spec_that_is_no_file_of_text_is_refused(call, tmp_path, make, what):
    make(tmp_path / "spec.toml")
    refused(call("apply", tmp_path / "spec.toml"), "spec", what)


def test_a_spec_without_a_model_asks_for_one(call, tmp_path):
    (tmp_path / "spec.toml").write_text('parallel = "TP2"')
    refused(call("apply", tmp_path / "spec.toml"), "spec", "the spec names no model; .*--model")


def test_more_stages_than_layers_are_refused(call, tmp_path):
    (tmp_path / "spec.toml").write_text(f'parallel = "PP3"{DEMO}')
    result = call("apply", tmp_path / "spec.toml")
    refused(result, "partition", "3 pipeline stages, but the model has 2 layers; .*at most 2")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "plan"
    handwritten.tensor_parallel(2).save(folder)
    return folder


def rewritten(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "plan.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.parametrize("command", ["check", "verify", "show"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text[: len(text) // 2], "not JSON|cannot be read"),
        (lambda text: text.replace('"relu"', '"gelu"', 1), "changed or cut"),
        (lambda text: text.replace('"schema": 2', '"schema": 999', 1), "update parframe"),
        (lambda text: "", "plan"),
    ],
    ids=["truncated", "tampered", "newer", "empty"],
)
def test_a_plan_that_was_changed_is_refused(call, plan, command, change, what):
    rewritten(plan, change)
    refused(call(command, plan), "plan", what)


@pytest.mark.parametrize("command", ["check", "verify", "show"])
def test_a_missing_plan_is_refused(call, tmp_path, command):
    refused(call(command, tmp_path / "none"), "plan", "No such file")


def test_a_weight_index_may_not_point_outside_its_folder(call, plan, tmp_path):
    (tmp_path / "weights").mkdir()
    index = {"weight_map": {"up.weight": "../secret.safetensors"}}
    (tmp_path / "weights" / "model.safetensors.index.json").write_text(json.dumps(index))
    result = call("verify", plan, "--weights", tmp_path / "weights")
    refused(result, "weights", "not a .safetensors file of this folder")


def test_weights_that_are_missing_are_named(call, plan, tmp_path):
    refused(call("verify", plan, "--weights", tmp_path / "none"), "weights", "")


@pytest.mark.parametrize("command", ["load", "dims"])
def test_a_pt2_is_read_without_executing_anything(call, tmp_path, command):
    path, mark = tmp_path / "model.pt2", tmp_path / "executed"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/archive_version", "0")
        archive.writestr("model/data.pkl", pickle.dumps(Bomb(mark)))
        archive.writestr("model/models/model.json", pickle.dumps(Bomb(mark)))
    refused(call(command, path), "load", "")
    assert not mark.exists()


def test_a_pt2_that_unpacks_to_far_more_than_it_is_is_refused(call, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/models/m.json", b"[" + b"0," * (8 << 20))
    refused(call("load", tmp_path / "m.pt2"), "load", "compressed more than 100 times")


def test_what_does_not_fit_this_machine_is_refused(call, plan):
    refused(call("verify", plan, "--batch", "1" + "0" * 12), "run", "out of memory")
    refused(call("dims", "x" * 300), "usage", "too long")


def test_a_pickle_named_pt2_is_not_executed(call, tmp_path):
    path, mark = tmp_path / "model.pt2", tmp_path / "executed"
    buffer = io.BytesIO()
    pickle.dump(Bomb(mark), buffer)
    path.write_bytes(buffer.getvalue())
    refused(call("load", path), "load", "")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}, "never run"),
        ({"model_type": "llama", "architectures": ["os.system"]}, "not a model of transformers"),
        ({"model_type": "lama"}, r"did you mean 'llama'\?"),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, "layers are more than"),
        ({"model_type": "llama", "num_hidden_layers": -1}, "not a number of layers"),
    ],
)
def test_a_config_may_not_bring_code_or_absurd_numbers(call, tmp_path, config, what):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    refused(call("load", tmp_path / "config.json"), "load", what)
    refused(call("dims", tmp_path), "load", what)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [("model.json", "[]"), ("model.json", "{"), ("model.json", "{}"), ("model.bin", "x"),
     ("model.json", "[" * 100_000)],
)  # fmt: skip
def test_what_is_no_model_is_refused(call, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    result = call("load", tmp_path / name, "-o", tmp_path / "out.json")
    assert result.code in (KINDS["load"][0], KINDS["graph"][0])
    refused(result, "load" if result.code == KINDS["load"][0] else "graph", "")
    assert not (tmp_path / "out.json").exists()


def test_a_graph_that_cannot_be_written_leaves_nothing_behind(call, tmp_path):
    graph = write_spec(tmp_path).with_name("graph.json")
    refused(call("load", graph, "-o", tmp_path / "no" / "out.json"), "output", "cannot be written")
    (tmp_path / "folder").mkdir()
    refused(call("load", graph, "-o", tmp_path / "folder"), "output", "cannot be written")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "graph.json", "spec.toml"]

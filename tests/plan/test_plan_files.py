"""Plan files: the same bytes twice, a stranger's file refused, an old plan kept whole."""

import json
import os
import subprocess
import sys
import threading

import attrs
import pytest
from handwritten import pipeline, tensor_parallel
from tiny_plans import ring_of

from parframe.errors import ParframeError
from parframe.plan import Note, load_plan, plan_json
from parframe.plan.plan_folder import save_plan
from parframe.sizes import symbol


@pytest.fixture
def saved(tmp_path):
    plan = attrs.evolve(
        tensor_parallel(3, 2),
        notes=(Note("replicated", "down.bias", "stored", symbol("batch") * 4),),
    )
    plan.save(tmp_path / "plan")
    return plan, tmp_path / "plan"


def contents(folder):
    return {
        os.path.join(where, name): open(os.path.join(where, name), "rb").read()
        for where, _, names in os.walk(folder)
        for name in names
    }


def test_a_plan_is_read_back_as_it_was(saved):
    plan, folder = saved
    assert load_plan(folder) == plan
    assert load_plan(folder / "plan.json") == plan


def test_distributed_forms_and_zigzag_names_are_read_back(tmp_path):
    plan = ring_of("llama", "CP3", "zigzag")
    plan.save(tmp_path / "plan")
    assert load_plan(tmp_path / "plan") == plan
    assert load_plan(tmp_path / "plan").placing.distributed_forms == {"cp": ("ring",)}
    assert load_plan(tmp_path / "plan").placing.zigzag == ("sequence",)


def test_the_same_plan_gives_the_same_bytes(saved):
    folder = saved[1]
    before = contents(folder)
    load_plan(folder).save(folder)
    assert contents(folder) == before
    assert os.listdir(folder.parent) == ["plan"]


def test_runs_that_write_one_folder_at_once_leave_a_whole_plan_and_nothing_else(saved, tmp_path):
    plan, folder = saved

    def write(times):
        for _ in range(times):
            plan.save(folder)

    writing = [threading.Thread(target=write, args=(10,)) for _ in range(3)]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    assert load_plan(folder) == plan
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_a_plan_is_read_and_written_without_torch(saved, tmp_path):
    code = (
        "import sys, parframe; plan = parframe.load_plan(sys.argv[1]); plan.save(sys.argv[2]);"
        "plan.device(0); plan.weights(0); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, saved[1], tmp_path / "other"], check=False)
    assert done.returncode == 0
    assert load_plan(tmp_path / "other") == saved[0]


def test_a_cut_plan_is_refused_wherever_it_is_cut(saved):
    path = saved[1] / "plan.json"
    text = path.read_text()
    for length in range(0, len(text) - 2, 97):
        path.write_text(text[:length])
        with pytest.raises(ParframeError) as caught:
            load_plan(saved[1])
        assert caught.value.kind == "plan"


@pytest.mark.parametrize(
    ("before", "after"),
    [('"tag":"down"', '"tag":"sum"'), ('"ffn_start":4', '"ffn_start":3'), ('"tp"', '"dp"')],
)
def test_a_changed_plan_is_refused(saved, before, after):
    path = saved[1] / "plan.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ParframeError, match="was changed or cut"):
        load_plan(saved[1])


def signed(content):
    """A stranger's plan, with a digest that fits it."""
    content.pop("digest", None)
    whole = {"schema": content["schema"], "digest": plan_json.content_digest(content), **content}
    return json.dumps(whole)


def spoiled():
    def spoil(*path_and_value):
        *path, last, value = path_and_value

        def change(content):
            for key in path:
                content = content[key]
            content[last] = value

        return change

    program = ("programs", "all")
    yield "a newer schema", spoil("schema", 3), "update parframe"
    yield "a schema of another type", spoil("schema", True), "is not a plan"
    yield "no graph", spoil("graph", None), "graph"
    yield "an unknown axis", spoil("placing", "mesh", [["tp", 6]]), "no axis 'dp'"
    yield "a huge mesh", spoil("placing", "mesh", [["dp", 10**9]]), "degree"
    yield "a file outside", spoil("programs", {"../x": {}}), "stage"
    yield "an operator of two", spoil(*program, "operators", 0, ["a", "b"]), "not an operator"
    yield "operators a text", spoil(*program, "operators", "abc"), "is not a list"
    yield "a dtype", spoil(*program, "tensors", "up", ["object", 1]), "not a dtype"
    yield "code as a size", spoil("devices", 0, 1, "ffn_start", "__import__('os')"), "not a size"
    yield "a division by zero", spoil("devices", 0, 1, "ffn_start", "1//0"), "not a size"
    yield "a dim below zero", spoil(*program, "tensors", "up", ["float32", -1]), "of a dim"
    yield "a huge dim", spoil(*program, "tensors", "up", ["float32", 2**64]), "of a dim"
    yield "a list as a size", spoil("devices", 0, 1, "ffn_start", [1]), "not a size"
    yield "a program's name", spoil("devices", 0, 0, "other"), "no program 'other'"
    yield "no axes", spoil(*program, "inputs", 0, 2, []), "has 0 axes"
    yield "a region of numbers", spoil(*program, "inputs", 0, 2, [[1], [2]]), "region"
    yield "another parameter", spoil(*program, "parameters", 0, 1, "other"), "no 'other'"
    yield "a negative stage", spoil(*program, "stage", -1), "no stage"
    yield "a state", spoil(*program, "states", {"cache": "none"}), "nothing defines 'none'"
    yield (
        "no distributed forms",
        spoil("placing", "distributed_forms", None),
        "is not a mesh, splits",
    )
    yield "a form of a number", spoil("placing", "distributed_forms", {"tp": [1]}), "1 is not text"
    yield "a number in zigzag", spoil("placing", "zigzag", [2]), "2 is not text"
    yield "a note", spoil("notes", [1]), "not a note"


@pytest.mark.parametrize(
    ("change", "what"), [(change, what) for _, change, what in spoiled()],
    ids=[name for name, _, _ in spoiled()],
)  # fmt: skip
def test_a_strangers_plan_is_refused(saved, change, what):
    path = saved[1] / "plan.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(signed(content))
    with pytest.raises(ParframeError, match=what) as caught:
        load_plan(saved[1])
    assert caught.value.kind == "plan"


def test_a_program_named_like_a_path_is_refused(saved):
    path = saved[1] / "plan.json"
    content = json.loads(path.read_text())
    content["programs"]["../x"] = content["programs"]["all"]
    path.write_text(signed(content))
    with pytest.raises(ParframeError, match="cannot be a file's name"):
        load_plan(saved[1])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "\ud800", "[" * 100_000, '{"schema": 1e999}', '{"schema": NaN}',
     '{"schema": ' + "9" * 5000 + "}"],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_plan_is_refused(saved, text):
    (saved[1] / "plan.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ParframeError) as caught:
        load_plan(saved[1])
    assert caught.value.kind == "plan"


def test_a_huge_file_is_refused_before_it_is_read(saved):
    with (saved[1] / "plan.json").open("r+b") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(ParframeError, match="larger than"):
        load_plan(saved[1])


def test_a_link_is_no_plan(saved, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "plan.json").symlink_to(saved[1] / "plan.json")
    with pytest.raises(ParframeError, match="not a plain file"):
        load_plan(tmp_path / "linked")


@pytest.mark.parametrize("name", ["missing", "missing/plan.json"])
def test_a_missing_plan_is_refused(tmp_path, name):
    with pytest.raises(ParframeError, match="give a plan's folder"):
        load_plan(tmp_path / name)


@pytest.mark.parametrize("name", ["notes.txt", "programs/notes.txt", "programs/link.py"])
def test_a_folder_with_something_else_in_it_is_left_alone(saved, name):
    if name.endswith("link.py"):
        (saved[1] / name).symlink_to("/etc/passwd")
    else:
        (saved[1] / name).write_text("mine")
    before = contents(saved[1])
    with pytest.raises(ParframeError, match=name) as caught:
        pipeline().save(saved[1])
    assert caught.value.kind == "output"
    assert contents(saved[1]) == before


def test_a_folder_that_is_no_plan_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ParframeError, match="contains 'mine'"):
        pipeline().save(tmp_path)
    with pytest.raises(ParframeError, match="is not a folder"):
        pipeline().save(tmp_path / "mine")
    with pytest.raises(ParframeError, match="parent"):
        pipeline().save(tmp_path / "a" / "b")


def test_an_empty_folder_and_a_linked_one_take_a_plan(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    pipeline().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_plan(tmp_path / "real") == pipeline()


@pytest.mark.parametrize("call", ["rename", "open"])
def test_a_failure_leaves_the_old_plan_whole(saved, monkeypatch, call):
    before = contents(saved[1])
    from pathlib import Path

    plain, calls = getattr(Path, call), []

    def fail(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, fail)
        with pytest.raises(ParframeError, match="No space left"):
            pipeline().save(saved[1])
    assert contents(saved[1]) == before
    assert os.listdir(saved[1].parent) == ["plan"]
    assert load_plan(saved[1]) == saved[0]


def test_a_report_is_saved_with_the_plan_and_goes_with_it(saved):
    save_plan(pipeline(), saved[1], report='{"ok": true}')
    assert (saved[1] / "report.json").read_text() == '{"ok": true}'
    assert load_plan(saved[1]) == pipeline()
    pipeline().save(saved[1])
    assert not (saved[1] / "report.json").exists()

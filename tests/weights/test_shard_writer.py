"""Folders with a file for each rank, and how they are written."""

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
import torch

import parframe
from parframe.errors import ParframeError
from parframe.plan import plan_digest
from parframe.weights import (
    read_state_dict,
    read_weights,
    write_shards,
)


def test_a_folder_of_shards_has_the_weights_of_the_checkpoint(saved, tmp_path, bytes_read):
    for case in ("llama tied", "a tensor for each expert"):
        folder, graph, _ = saved(case)
        plan = parframe.partition(graph, "DP2TP2")
        out = tmp_path / case
        written = write_shards(plan, folder, out)
        assert written.files[0] == written.files[2] != written.files[1] == written.files[3]
        loaded = parframe.load_plan(out)
        for rank in range(4):
            bytes_read[0] = 0
            found, expected = read_weights(loaded, rank, out), read_weights(plan, rank, folder)
            assert list(found) == list(expected)
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_shards_keep_the_dtype_they_were_written_in(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    (tmp_path / "out").mkdir()  # an empty folder may be used
    write_shards(plan, folder, tmp_path / "out", dtype=torch.bfloat16)
    found, whole = (
        read_weights(plan, 1, tmp_path / "out"),
        read_weights(plan, 1, folder, dtype=torch.bfloat16),
    )
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_shards_of_another_plan_are_refused(saved, tmp_path):
    folder, graph, _ = saved("llama")
    write_shards(parframe.partition(graph, "TP2"), folder, tmp_path / "out")
    with pytest.raises(ParframeError, match=r"shards of another plan: sha256:") as caught:
        read_weights(parframe.partition(graph, "PP2"), 0, tmp_path / "out")
    assert caught.value.kind == "weights"
    with pytest.raises(ParframeError, match="not the whole weights"):
        read_state_dict(graph, tmp_path / "out")


def test_a_plans_digest_does_not_depend_on_where_it_was_made(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    plan.save(tmp_path / "plan")
    code = (
        "import os, sys, parframe; from parframe.plan import plan_digest;"
        "os.chdir(sys.argv[1]); plan = parframe.partition(parframe.load('.'), 'TP2');"
        "print(plan_digest(plan), plan_digest(parframe.load_plan(sys.argv[2])))"
    )
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder), str(tmp_path / "plan")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert set(process.stdout.split()) == {plan_digest(plan)}
    assert plan_digest(parframe.partition(graph, "PP2")) != plan_digest(plan)


def test_no_file_remains_where_writing_fails(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(ParframeError, match="cannot be written") as caught:
            write_shards(plan, folder, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.kind == "output"
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_written_for_incompatible_weights(saved, tmp_path):
    plan = parframe.partition(saved("llama")[1], "TP2")
    with pytest.raises(ParframeError, match="another model"):
        write_shards(plan, saved("fused qkv by heads")[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["full", "file", "missing/out", "file/out"])
def test_shards_are_written_only_to_an_empty_place(saved, tmp_path, place):
    folder, graph, _ = saved("llama")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ParframeError) as caught:
        write_shards(parframe.partition(graph, "TP2"), folder, tmp_path / place)
    assert caught.value.kind == "output"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_the_second_of_two_runs_into_one_folder_is_refused(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    begun, refused = threading.Event(), []

    def second(done, total):
        if not begun.is_set():
            begun.set()
            with pytest.raises(ParframeError, match="being written by another run"):
                write_shards(plan, folder, tmp_path / "out")
            refused.append(True)

    write_shards(plan, folder, tmp_path / "out", progress=second)
    assert refused == [True]
    assert read_weights(plan, 1, tmp_path / "out").keys() == plan.weights(1).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_of_a_killed_run_are_removed(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / "rank-00000.safetensors").write_bytes(b"half")
    (tmp_path / ".out.lock").touch()
    write_shards(plan, folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("content", ["{", "{}", '{"schema": 9}', '{"files": ["../x"]}'])
def test_a_malformed_folder_of_shards_is_refused(saved, tmp_path, content):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    write_shards(plan, folder, tmp_path / "out")
    (tmp_path / "out" / "shards.json").write_text(content)
    with pytest.raises(ParframeError) as caught:
        read_weights(plan, 0, tmp_path / "out")
    assert caught.value.kind == "weights"

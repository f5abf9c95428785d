"""What goes wrong in a run of a plan is told: before it, where that can be known, or by rank."""

import io
import os
import signal
import threading
from contextlib import redirect_stderr

import click
import completions
import models
import pytest
import torch
from greedy import PROMPTS, completed, expected, saved

import parframe
from parframe import ParframeError
from parframe.cli import failures
from parframe.executors import generate, local
from parframe.executors.memory_estimate import estimates
from parframe.executors.rank import check_device, shape_of
from parframe.generation import Request, Sampling, Settings
from parframe.launcher import RunError
from parframe.weights import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("model")
    saved("llama", found)
    return found


@pytest.fixture(scope="module")
def plan(folder):
    return parframe.partition(parframe.load(folder, positions=True), "TP2")


@pytest.fixture
def nothing_starts(monkeypatch):
    """Starting a process fails the test."""
    monkeypatch.setattr(local.Launch, "__enter__", lambda run: pytest.fail("processes started"))


def request(tokens=(5, 6, 7), new=4):
    return Request(0, tokens, Sampling(max_new_tokens=new))


def refused(plan, asked, settings):
    with pytest.raises(ParframeError) as told:
        list(generate(plan, [asked], settings))
    return told.value


@pytest.mark.parametrize(
    ("asked", "settings", "what"),
    [
        (request(range(3, 12)), {"context": 8}, "the prompt has 9 tokens, the cache holds 8"),
        (request(new=100), {}, "the model holds 64"),
        (request((5, 128)), {}, "128 is not a token of the model, which has 128"),
        (request((5, -1)), {}, "-1 is not a token of the model"),
    ],
)
def test_a_request_that_does_not_fit_is_told_before(nothing_starts, plan, asked, settings, what):
    error = refused(plan, asked, Settings(**settings))
    assert (error.kind, error.where.split(",")[0]) == ("input", "request 0")
    assert what in error.what


def test_an_empty_prompt_is_told():
    with pytest.raises(ParframeError, match="the prompt is empty"):
        Request(0, ())


def test_weights_of_another_model_are_told_before(nothing_starts, plan, tmp_path):
    saved("llama", tmp_path, hidden_size=32)
    error = refused(plan, request(), Settings(tmp_path))
    assert error.kind == "weights"


def test_shards_of_another_plan_are_told_before(nothing_starts, plan, folder, tmp_path):
    write_shards(parframe.partition(plan.graph, "PP2"), folder, tmp_path / "shards")
    error = refused(plan, request(), Settings(tmp_path / "shards"))
    assert error.kind == "weights"
    assert "holds the shards of another plan" in error.what


def test_a_dtype_narrower_than_the_graph_is_told_before(nothing_starts, plan):
    error = refused(plan, request(), Settings(dtype="bfloat16"))
    assert error.what == "the model's graph computes in float32, which is not narrower"


@pytest.mark.parametrize(
    ("name", "settings", "what"),
    [
        ("bloom", {}, "needs the positions of tokens as an input, and its graph has none"),
        ("falcon", {}, "cannot be run with a key-value cache"),
        ("bert", {"cached": False}, "generates no text"),
    ],
)
def test_a_model_that_cannot_be_run_so_is_told_before(nothing_starts, name, settings, what):
    graph = parframe.load(models.tiny_config(name), positions=None)
    error = refused(parframe.partition(graph, "TP2"), request(), Settings(**settings))
    assert error.kind == "run"
    assert what in error.what
    assert ("--no-cache" in error.hint) == (not settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_before(nothing_starts, plan):
    error = refused(plan, request(), Settings(device="cuda"))
    assert (error.kind, error.where) == ("run", "this host, device cuda")


def test_too_few_gpus_are_told_before_with_the_way_to_share_them(nothing_starts, monkeypatch, plan):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    error = refused(plan, request(), Settings(device="cuda"))
    assert error.what == "2 ranks need a GPU each, and there are 1"
    assert "--share-gpus" in error.hint
    check_device("cuda", "this host", ranks=2, shared=True)  # over gloo


def test_a_build_without_nccl_is_told_before(nothing_starts, monkeypatch, plan):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: name == "gloo")
    error = refused(plan, request(), Settings(device="cuda"))
    assert error.what == "this build of PyTorch has no nccl"


def test_a_killed_rank_is_named(plan):
    asked = [Request(n, (5, 6), Sampling(max_new_tokens=60)) for n in range(8)]
    settings = Settings(rows=1)
    with local.launched(plan, asked, settings) as run:
        outcomes = local.served(run, plan, asked, settings)
        next(outcomes)
        os.kill(run.processes[1], signal.SIGKILL)
        with pytest.raises(RunError, match="killed by SIGKILL") as told:
            list(outcomes)
    first = told.value.failures[0]
    assert (first.rank, first.cause, first.phase) == (1, "crashed", "step")
    assert first.operator


@pytest.mark.parametrize(("kind", "words"), [("memory", " (expected: "), ("exception", "cut")])
def test_a_fault_in_a_rank_is_told_with_what_helps(tmp_path, kind, words):
    fault = {"fault": {"kind": kind, "phase": "load", "victim": 1}}
    settings = completions.settings_of("load")
    with completions.launched(2, settings, fault, {}) as run, pytest.raises(RunError) as told:
        list(completions.results(run, 2, settings, lambda fault: None))
    line = str(told.value).splitlines()[0]
    assert "rank 1, load at weights" in line
    assert words in line
    shown = shown_by_debug(told.value)
    assert "rank 1, load at weights" in shown
    assert f"in _{'exhaust_memory' if kind == 'memory' else 'raise'}" in shown


def shown_by_debug(error):
    """What the command line prints of an error when it is asked for all."""

    @click.group
    def group():
        pass

    @group.command
    @click.option("--debug", is_flag=True)
    def failing(debug):
        raise error

    printed = io.StringIO()
    with redirect_stderr(printed):
        assert failures.run(group, ["failing", "--debug"]) == error.exit_code
    return printed.getvalue()


def test_two_runs_at_once_both_work(folder, plan):
    found = {}

    def run(number):
        found[number] = completed(plan, PROMPTS, 8, Settings(folder))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = expected(models.tiny_model("llama").float(), PROMPTS, 8)
    assert found == {0: wanted, 1: wanted}


def test_what_memory_is_expected_is_of_this_run(plan):
    small = estimates(plan, shape_of(plan, [request()], Settings()))
    large = estimates(plan, shape_of(plan, [request()], Settings(context=4096)), "float64")
    assert len(small) == 2
    assert all("of weights" in text and "of cache" in text for text in small)
    assert _total(large[0]) > 4 * _total(small[0])


def _total(text):
    number, unit = text.split()[:2]
    return float(number) * {"KiB": 1, "MiB": 1024, "GiB": 1024**2}[unit]

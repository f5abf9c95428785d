"""Errors of runs: before any process starts where possible, or with the rank that failed."""

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
from greedy_generation import PROMPTS, completed, expected, saved

import parframe
from parframe import ParframeError
from parframe.cli import failures
from parframe.executors import generate, local
from parframe.executors.devices import check_device
from parframe.executors.memory_estimate import estimate_rank_memory
from parframe.generation import Request, Sampling, Settings
from parframe.generation.batch_shape import choose_batch_shape
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
    """Fail the test if a process is started."""
    monkeypatch.setattr(local.Launch, "__enter__", lambda run: pytest.fail("processes started"))


def request(tokens=(5, 6, 7), new=4):
    return Request(0, tokens, Sampling(max_new_tokens=new))


def run_error(plan, asked, settings):
    with pytest.raises(ParframeError) as raised:
        list(generate(plan, [asked], settings))
    return raised.value


@pytest.mark.parametrize(
    ("asked", "settings", "what"),
    [
        (
            request(range(3, 12)),
            {"context": 8},
            "the prompt has 9 tokens, the cache has 8 positions",
        ),
        (request(new=100), {}, "the model has 64"),
        (request((5, 128)), {}, "128 is not a token ID of the model, which has 128"),
        (request((5, -1)), {}, "-1 is not a token ID of the model"),
    ],
)
def test_request_that_does_not_fit_is_refused_before_the_run(
    nothing_starts, plan, asked, settings, what
):
    error = run_error(plan, asked, Settings(**settings))
    assert (error.kind, error.where.split(",")[0]) == ("input", "request 0")
    assert what in error.what


def test_empty_prompt_is_refused():
    with pytest.raises(ParframeError, match="the prompt is empty"):
        Request(0, ())


def test_weights_of_another_model_are_refused_before_the_run(nothing_starts, plan, tmp_path):
    saved("llama", tmp_path, hidden_size=32)
    error = run_error(plan, request(), Settings(tmp_path))
    assert error.kind == "weights"


def test_shards_of_another_plan_are_refused_before_the_run(nothing_starts, plan, folder, tmp_path):
    write_shards(parframe.partition(plan.graph, "PP2"), folder, tmp_path / "shards")
    error = run_error(plan, request(), Settings(tmp_path / "shards"))
    assert error.kind == "weights"
    assert "has the shards of another plan" in error.what


def test_dtype_narrower_than_the_graph_is_refused_before_the_run(nothing_starts, plan):
    error = run_error(plan, request(), Settings(dtype="bfloat16"))
    assert error.what == "is narrower than float32, the dtype of the model's graph"


@pytest.mark.parametrize(
    ("name", "settings", "what"),
    [
        ("bloom", {}, "needs token positions as an input, which its graph does not have"),
        ("falcon", {}, "cannot be run with a key-value cache"),
        ("bert", {"cached": False}, "generates no text"),
    ],
)
def test_unsupported_model_is_refused_before_the_run(nothing_starts, name, settings, what):
    graph = parframe.load(models.tiny_config(name), positions=None)
    error = run_error(parframe.partition(graph, "TP2"), request(), Settings(**settings))
    assert error.kind == "run"
    assert what in error.what
    assert ("--no-cache" in error.hint) == (not settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_reported_before_the_run(nothing_starts, plan):
    error = run_error(plan, request(), Settings(device="cuda"))
    assert (error.kind, error.where) == ("run", "this node, device cuda")


def test_too_few_gpus_are_reported_before_the_run_with_a_hint_to_share_them(
    nothing_starts, monkeypatch, plan
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    error = run_error(plan, request(), Settings(device="cuda"))
    assert error.what == "2 ranks need one GPU each, and this node has 1"
    assert "--share-gpus" in error.hint
    check_device("cuda", "this node", ranks=2, share_gpus=True)  # over gloo


def test_pytorch_without_nccl_is_reported_before_the_run(nothing_starts, monkeypatch, plan):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: name == "gloo")
    error = run_error(plan, request(), Settings(device="cuda"))
    assert error.what == "this build of PyTorch has no nccl"


def test_killed_rank_is_named(plan):
    asked = [Request(n, (5, 6), Sampling(max_new_tokens=60)) for n in range(8)]
    settings = Settings(batch_size=1)
    with local.create_launch(plan, asked, settings) as run:
        outcomes = local.serve_requests(run, plan, asked, settings)
        next(outcomes)
        os.kill(run.processes[1], signal.SIGKILL)
        with pytest.raises(RunError, match="killed by SIGKILL") as raised:
            list(outcomes)
    first = raised.value.failures[0]
    assert (first.rank, first.cause, first.phase) == (1, "crashed", "step")
    assert first.operator


@pytest.mark.parametrize(("kind", "words"), [("memory", " (expected: "), ("exception", "cut")])
def test_error_of_a_rank_has_its_estimate_and_traceback(tmp_path, kind, words):
    fault = {"fault": {"kind": kind, "phase": "load", "victim": 1}}
    settings = completions.settings_of("load")
    with (
        completions.create_launch(2, settings, fault, {}) as run,
        pytest.raises(RunError) as raised,
    ):
        list(completions.results(run, 2, settings, lambda fault: None))
    line = str(raised.value).splitlines()[0]
    assert "rank 1, load at weights" in line
    assert words in line
    shown = shown_by_debug(raised.value)
    assert "rank 1, load at weights" in shown
    assert f"in _{'exhaust_memory' if kind == 'memory' else 'raise'}" in shown


def shown_by_debug(error):
    """Return what the command line prints of an error with --debug."""

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


def test_two_concurrent_runs_succeed(folder, plan):
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


def test_memory_estimate_depends_on_the_run(plan):
    small = estimate_rank_memory(plan, choose_batch_shape(plan, [request()], Settings()))
    large = estimate_rank_memory(
        plan, choose_batch_shape(plan, [request()], Settings(context=4096)), "float64"
    )
    assert len(small) == 2
    assert all("of weights" in text and "of cache" in text for text in small)
    assert _total(large[0]) > 4 * _total(small[0])


def _total(text):
    number, unit = text.split()[:2]
    return float(number) * {"KiB": 1, "MiB": 1024, "GiB": 1024**2}[unit]

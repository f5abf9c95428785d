"""Executors: worlds of torchrun and of host programs, and all ranks in one process."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import models
import pytest

import parframe
from parframe import hooks
from parframe.errors import KINDS, ParframeError
from parframe.executors.generate import EXECUTORS
from parframe.executors.network_interface import find_interface
from parframe.executors.torchrun import network_variables, read_world
from parframe.generation import Sampling

PROMPTS = ((1, 17, 5), (1, 9, 30, 31, 7), (40,))
NEW = 6

WORLD = {
    "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555", "TORCHELASTIC_RUN_ID": "tested",
}  # fmt: skip

TWO_NODES = {**WORLD, "WORLD_SIZE": "2"}

HOST = """
import json, sys
import torch.distributed as dist
import parframe
from parframe.generation import Sampling

folder, store, rank, prompts = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
plan = parframe.partition(parframe.load(folder, positions=True), "DP2")
for _ in range(2):
    found = parframe.run(
        plan, prompts, "random", Sampling(max_new_tokens=6), executor="host", timeout=60.0
    )
    print(json.dumps([result.tokens for result in found]))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Create a tiny Llama without weights, and a file of prompts."""
    made = tmp_path_factory.mktemp("model")
    models.tiny_config("llama").save_pretrained(made)
    lines = (json.dumps({"tokens": prompt}) for prompt in PROMPTS)
    (made / "prompts").write_text("".join(f"{line}\n" for line in lines))
    return made


@pytest.fixture(scope="module")
def expected(folder):
    """Return the new tokens of each prompt alone on one device."""
    return [completed(folder, "TP1", prompts=[prompt])[0] for prompt in PROMPTS]


def completed(folder, composite, executor="simulate", sampling=None, prompts=PROMPTS):
    plan = parframe.partition(parframe.load(folder, positions=True), composite)
    sampling = sampling or Sampling(max_new_tokens=NEW)
    found = parframe.run(plan, prompts, "random", sampling, executor=executor)
    return [list(result.tokens) for result in found]


def generating(folder, composite):
    """Return the command line for torchrun."""
    return [
        "-m", "parframe", "generate", str(folder), "--parallel", composite, "--executor",
        "torchrun", "--weights", "random", "--prompt-file", str(folder / "prompts"),
        "--max-new-tokens", str(NEW), "--ignore-eos", "--timeout", "90",
    ]  # fmt: skip


def torchrun(*options):
    return [sys.executable, "-m", "torch.distributed.run", *options]


def lines_of(tokens):
    """Return the output for tokens without a tokenizer."""
    return "".join(" ".join(map(str, own)) + "\n" for own in tokens)


def finished(processes):
    """Wait until all processes have succeeded, and return their outputs."""
    try:
        result = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, err) in zip(processes, result, strict=True):
        assert process.returncode == 0, err
    return [out for out, _ in result]


def started(command, **variables):
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("composite", ["TP2PP2", "SP2TP", "CP2", "DP2"])
def test_simulated_ranks_give_the_tokens_of_one_device(folder, expected, composite):
    assert completed(folder, composite) == expected


@pytest.mark.slow
def test_simulated_ranks_draw_the_tokens_of_processes(folder):
    sampling = Sampling(max_new_tokens=NEW, temperature=1.0, top_k=50, seed=7)
    found = completed(folder, "TP2", "simulate", sampling)
    assert found == completed(folder, "TP2", "local", sampling)


@pytest.mark.slow
def test_torchrun_prints_text_once(folder, expected):
    command = torchrun("--standalone", "--nproc-per-node", "2", *generating(folder, "TP2"))
    assert finished([started(command)]) == [lines_of(expected)]


@pytest.mark.slow
def test_host_keeps_its_process_group_and_rank_0_gets_all_results(folder, expected, tmp_path):
    given = [str(folder), str(tmp_path / "store")]
    ranks = [
        started(
            [sys.executable, "-c", HOST, *given, str(rank), json.dumps(PROMPTS)],
            GLOO_SOCKET_IFNAME="lo",
        )
        for rank in range(2)
    ]
    result = [[json.loads(line) for line in out.splitlines()] for out in finished(ranks)]
    assert result == [[expected, expected], [[], []]]


@pytest.fixture
def two_nodes():
    """Create two connected network namespaces, and yield the commands to run in them."""
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if ip is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the program ip")
    names = [f"parframe{os.getpid()}{side}" for side in "ab"]
    cables = [f"pf{os.getpid()}{side}" for side in "ab"]

    def do(*words):
        return subprocess.run([ip, *words], capture_output=True, text=True, check=True)

    try:
        try:
            for name in names:
                do("netns", "add", name)
            do("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), start=1):
            do("link", "set", cable, "netns", name)
            do("-n", name, "address", "add", f"10.213.0.{number}/24", "dev", cable)
            do("-n", name, "link", "set", cable, "up")
            do("-n", name, "link", "set", "lo", "up")
        yield [[ip, "netns", "exec", name] for name in names]
    finally:
        for words in (("link", "del", cables[0]), *(("netns", "del", name) for name in names)):
            with contextlib.suppress(subprocess.CalledProcessError):
                do(*words)


@pytest.mark.slow
def test_two_nodes_give_the_tokens_of_one_device(two_nodes, folder, expected):
    nodes = [
        started([
            *inside,
            *torchrun(
                "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1",
                "--master-addr", "10.213.0.1", "--master-port", "29555",
            ),
            *generating(folder, "PP2"),
        ])
        for number, inside in enumerate(two_nodes)
    ]  # fmt: skip
    assert finished(nodes) == [lines_of(expected), ""]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"RANK": "", "MASTER_ADDR": ""}, "has not set RANK, MASTER_ADDR"),
        ({"TORCHELASTIC_RUN_ID": ""}, "has not set TORCHELASTIC_RUN_ID"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, and WORLD_SIZE is 2"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK is 1, and LOCAL_WORLD_SIZE is 1"),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}, "above RANK, which is 0"),
        ({"LOCAL_WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE is 2, above WORLD_SIZE, which is 1"),
        ({"RANK": "-1"}, "RANK is '-1', which is not a number"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000, which is not from 1 to 65535"),
    ],
)
def test_invalid_torchrun_variables_are_refused(changes, what):
    with pytest.raises(ParframeError, match=what) as raised:
        read_world({**WORLD, **changes})
    assert raised.value.kind == "run"


def test_world_of_another_size_is_refused_before_the_run(folder, call, monkeypatch):
    for name, text in WORLD.items():
        monkeypatch.setenv(name, text)
    result = call("generate", *generating(folder, "TP2")[3:])
    assert result.code == KINDS["run"][0]
    assert "the world has 1 ranks, and the plan has 2; start 2 processes" in result.err
    assert result.out == ""


def test_missing_store_is_reported_in_one_line(folder, call, monkeypatch):
    for name, text in (WORLD | {"MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, text)
    result = call("generate", *generating(folder, "TP1")[3:], "--timeout", "1")
    assert result.code == KINDS["run"][0]
    assert "torchrun's store at 127.0.0.1, port 1, does not answer" in result.err
    assert result.err.count("\n") == 1


def test_host_without_a_process_group_gets_a_hint(folder):
    with pytest.raises(ParframeError, match=r"no process group; call .*init_process_group first"):
        completed(folder, "TP1", "host")


def test_ranks_of_one_node_use_loopback():
    assert network_variables(read_world(WORLD), {})["GLOO_SOCKET_IFNAME"] == "lo"
    assert find_interface("127.0.0.1", 1) == "lo"


def test_nodes_cannot_use_loopback_unless_set():
    with pytest.raises(
        ParframeError, match=r"loopback of this node, which ranks on other nodes cannot reach"
    ):
        network_variables(read_world(TWO_NODES), {})
    chosen = {"GLOO_SOCKET_IFNAME": "eth7"}
    assert network_variables(read_world(TWO_NODES), chosen) == {"TORCH_GLOO_LAZY_INIT": "1"}


def test_hooks_reserve_the_names_of_built_in_executors():
    assert set(hooks.EXECUTORS) == set(EXECUTORS)


def test_executors_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "executors.md").read_text(encoding="utf-8")
    assert [name for name in EXECUTORS if f"`{name}`" not in page] == []

"""Start of the fork server process: its command, environment and inherited descriptors."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.launcher import temporary_folder
from parframe.launcher.channel import Channel
from parframe.launcher.heartbeat import HEARTBEAT_BYTES, clear_heartbeats, create_anonymous_file
from parframe.launcher.processes import find_loopback_interface

_DEFAULTS = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # a check for CUDA must not initialize it before the fork
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables that keep libraries quiet and safe to fork, unless the user sets them."""


_TIMEOUT_FACTOR = 4
"""Ratio of the communication timeout to the time limit of a phase: peers may be busy."""


@attrs.frozen
class LaunchConfig:
    """Configuration of a run.

    Parameters
    ----------
    module, task, world, facts, blob, threads, timeout, timeouts, environment
        As in `Launch`.
    """

    module: str
    task: str
    world: int
    facts: dict[str, Any]
    blob: bytes | memoryview
    threads: int
    timeout: float
    timeouts: dict[str, float]
    environment: dict[str, str]


@attrs.frozen(eq=False)
class ForkServerProcess:
    """Fork server process with its connections."""

    process: subprocess.Popen[bytes]
    channel: Channel
    channels: list[Channel]
    folder: Path | None


def create_heartbeats(world: int) -> tuple[int, mmap.mmap]:
    """Create the shared memory of the heartbeats of all workers and of the fork server."""
    descriptor = create_anonymous_file("parframe-heartbeats", (world + 1) * HEARTBEAT_BYTES)
    memory = mmap.mmap(descriptor, 0)
    clear_heartbeats(memory, world + 1)
    return descriptor, memory


def start_fork_server(
    config: LaunchConfig, descriptor: int, outputs: Sequence[int]
) -> ForkServerProcess:
    """Start the fork server.

    The calling thread must live as long as the run: where the system kills a process with its
    parent, the parent is that thread.
    """
    environment = _environment(config)
    blob = _create_blob_file(config.blob)
    pairs = [socket.socketpair() for _ in range(config.world + 1)]
    child_ends = [child_end.fileno() for _, child_end in pairs]
    try:
        process = subprocess.Popen(
            [*_command(), config.module, str(child_ends[-1]), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environment,
            pass_fds=[*child_ends, *outputs, descriptor, blob],
            start_new_session=True,  # so that only the launcher receives ctrl-c
        )
    finally:
        os.close(blob)
        for _, end in pairs:
            end.close()
    channels = [Channel(ours) for ours, _ in pairs]
    message = {
        "world": config.world,
        "task": config.task,
        "facts": config.facts,
        "heartbeats": descriptor,
        "blob": blob,
        "bytes": len(config.blob),
        "workers": child_ends[:-1],
        "outputs": list(outputs),
        "threads": config.threads,
        "timeout": _TIMEOUT_FACTOR * max([config.timeout, *config.timeouts.values()]),
    }
    server = ForkServerProcess(
        process, channels.pop(), channels, temporary_folder.find(environment)
    )
    try:
        server.channel.send(message)
    except OSError:
        server.channel.closed = True  # it exited at once: its exit code is reported later
    return server


def _command() -> list[str]:
    if not sys.executable:
        raise ParframeError(
            "run",
            "this process",
            "its Python interpreter is not known (sys.executable is empty)",
            "run from an ordinary interpreter",
        )
    return [sys.executable, "-P", "-m", "parframe.launcher"]


def _environment(config: LaunchConfig) -> dict[str, str]:
    """Return the environment, with this process's import path and loopback networking."""
    interface = find_loopback_interface()
    found = {
        **_DEFAULTS,
        "OPENBLAS_NUM_THREADS": "1",  # it would start threads on import, before the fork
        "OMP_NUM_THREADS": str(config.threads),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "TORCH_GLOO_LAZY_INIT": "1",  # connect only the ranks that communicate
        **config.environment,
    }
    return found | temporary_folder.environment_variables(found)


def _create_blob_file(blob: bytes | memoryview) -> int:
    descriptor = create_anonymous_file("parframe-bytes", len(blob))
    written, view = 0, memoryview(blob)
    while written < len(view):
        written += os.write(descriptor, view[written:])
    return descriptor

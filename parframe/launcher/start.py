"""Start the process that makes the workers: its command, its environment, what it inherits."""

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
from parframe.launcher.heartbeat import SIZE, anonymous, clear
from parframe.launcher.processes import loopback

_DEFAULTS = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # to ask for CUDA must not start it before the fork
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What keeps libraries quiet and fit to be forked, unless the user set it otherwise."""


_PATIENCE = 4
"""How much longer than a phase a communication may take: one rank may wait for a busy other."""


@attrs.frozen
class Order:
    """What to start.

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
class Started:
    """A process that makes workers.

    Parameters
    ----------
    process
        The process.
    channel
        The connection to it.
    channels
        The connection to every worker.
    folder
        Where temporary files of all of them lie.
    """

    process: subprocess.Popen[bytes]
    channel: Channel
    channels: list[Channel]
    folder: Path | None


def records(world: int) -> tuple[int, mmap.mmap]:
    """Make the memory of the records: of every worker, and of the process that starts them."""
    descriptor = anonymous("parframe-records", (world + 1) * SIZE)
    memory = mmap.mmap(descriptor, 0)
    clear(memory, world + 1)
    return descriptor, memory


def start(order: Order, descriptor: int, outputs: Sequence[int]) -> Started:
    """Start the process that makes the workers.

    The thread that calls this must live as long as the run: where the system ends a process with
    its parent, the parent is that thread.

    Parameters
    ----------
    order
        What to start.
    descriptor
        The memory of the records.
    outputs
        Where each worker writes.

    Returns
    -------
    Started
        The process, which will make the workers.
    """
    environment = _environment(order)
    blob = _written(order.blob)
    pairs = [socket.socketpair() for _ in range(order.world + 1)]
    theirs = [theirs.fileno() for _, theirs in pairs]
    try:
        process = subprocess.Popen(
            [*_command(), order.module, str(theirs[-1]), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environment,
            pass_fds=[*theirs, *outputs, descriptor, blob],
            start_new_session=True,  # so that only the launcher hears of ctrl-c
        )
    finally:
        os.close(blob)
        for _, end in pairs:
            end.close()
    channels = [Channel(ours) for ours, _ in pairs]
    message = {
        "world": order.world,
        "task": order.task,
        "facts": order.facts,
        "records": descriptor,
        "blob": blob,
        "bytes": len(order.blob),
        "workers": theirs[:-1],
        "outputs": list(outputs),
        "threads": order.threads,
        "timeout": _PATIENCE * max([order.timeout, *order.timeouts.values()]),
    }
    started = Started(process, channels.pop(), channels, temporary_folder.of(environment))
    try:
        started.channel.send(message)
    except OSError:
        started.channel.closed = True  # it ended at once: its exit code will tell
    return started


def _command() -> list[str]:
    if not sys.executable:
        raise ParframeError(
            "run",
            "this process",
            "its Python interpreter is not known (sys.executable is empty)",
            "run from an ordinary interpreter",
        )
    return [sys.executable, "-P", "-m", "parframe.launcher"]


def _environment(order: Order) -> dict[str, str]:
    """The environment: what can be imported here can be there, and nothing leaves this host."""
    interface = loopback()
    found = {
        **_DEFAULTS,
        "OPENBLAS_NUM_THREADS": "1",  # it makes its threads on import, before the workers are made
        "OMP_NUM_THREADS": str(order.threads),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "TORCH_GLOO_LAZY_INIT": "1",  # a group connects those who speak, not all with all
        **order.environment,
    }
    return found | temporary_folder.variables(found)


def _written(blob: bytes | memoryview) -> int:
    descriptor = anonymous("parframe-bytes", len(blob))
    written, view = 0, memoryview(blob)
    while written < len(view):
        written += os.write(descriptor, view[written:])
    return descriptor

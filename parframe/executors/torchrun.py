"""Executor `torchrun`: this process is one rank of a world that torchrun made."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import attrs
from torch.distributed import (  # type: ignore[attr-defined]
    DistError,
    PrefixStore,
    TCPStore,
)

from parframe.errors import ParframeError
from parframe.executors.external_ranks import (
    ExternalRankContext,
    Outcome,
    check_world_size,
    complete_requests,
)
from parframe.executors.network_interface import find_interface
from parframe.generation.requests import Request
from parframe.generation.settings import Settings
from parframe.plan import Plan

_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_NAMES = ("MASTER_ADDR", "TORCHELASTIC_RUN_ID")
_HINT = (
    "start with torchrun --nproc-per-node N -m parframe generate ..., which sets these variables"
)
_STORE_TIMEOUT = 30.0  # seconds that the store has to accept connections
_RETRY_INTERVAL = 0.2
_runs = itertools.count()


@attrs.frozen
class TorchrunWorld:
    """World of torchrun, as its environment variables describe it.

    Parameters
    ----------
    rank, size
        Rank and world size.
    local_rank, local_size
        Rank and number of ranks on this node.
    address, port
        Address and port of torchrun's store.
    run
        Name of this run and of this start of it.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    run: str


def generate(plan: Plan, requests: Sequence[Request], settings: Settings) -> Iterator[Outcome]:
    """Complete requests; see `parframe.executors.generate`."""
    world = read_world(os.environ)
    check_world_size("torchrun", world.size, plan)
    run = f"{world.run}.{next(_runs)}"
    os.environ.update(network_variables(world, os.environ))
    context = ExternalRankContext(
        world.rank,
        world.size,
        world.local_rank,
        settings.timeout,
        store=PrefixStore(f"parframe/{run}", _connect_store(world, settings.timeout)),
        run=run,
        threads=max(1, len(os.sched_getaffinity(0)) // world.local_size),
    )
    yield from complete_requests(context, plan, requests, settings)


def read_world(environment: Mapping[str, str]) -> TorchrunWorld:
    """Read the world from the environment variables of torchrun.

    Parameters
    ----------
    environment
        Environment variables of the process.

    Raises
    ------
    ParframeError
        Of kind ``run``, if variables are missing or contradict each other.
    """
    missing = [name for name in (*_COUNTS, *_NAMES) if not environment.get(name)]
    if missing:
        raise _environment_error(f"torchrun has not set {', '.join(missing)}")
    counts = {}
    for name in _COUNTS:
        text = environment[name]
        if not (text.isascii() and text.isdecimal()):
            raise _environment_error(f"{name} is {text!r}, which is not a number")
        counts[name] = int(text)
    for part, whole in (
        ("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ):  # fmt: skip
        if counts[part] >= counts[whole]:
            raise _environment_error(f"{part} is {counts[part]}, and {whole} is {counts[whole]}")
    for part, whole in (("LOCAL_RANK", "RANK"), ("LOCAL_WORLD_SIZE", "WORLD_SIZE")):
        if counts[part] > counts[whole]:
            raise _environment_error(
                f"{part} is {counts[part]}, above {whole}, which is {counts[whole]}"
            )
    if not 0 < counts["MASTER_PORT"] < 2**16:
        raise _environment_error(
            f"MASTER_PORT is {counts['MASTER_PORT']}, which is not from 1 to {2**16 - 1}"
        )
    restarts = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return TorchrunWorld(
        rank=counts["RANK"],
        size=counts["WORLD_SIZE"],
        local_rank=counts["LOCAL_RANK"],
        local_size=counts["LOCAL_WORLD_SIZE"],
        address=environment["MASTER_ADDR"],
        port=counts["MASTER_PORT"],
        run=f"{environment['TORCHELASTIC_RUN_ID']}.{restarts}",
    )


def network_variables(world: TorchrunWorld, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which gloo finds other ranks, without those already set."""
    found = {"TORCH_GLOO_LAZY_INIT": "1"}
    if "GLOO_SOCKET_IFNAME" not in environment:
        alone = world.size == world.local_size
        found["GLOO_SOCKET_IFNAME"] = "lo" if alone else _find_shared_interface(world)
    return {name: text for name, text in found.items() if name not in environment}


def receives_outcomes() -> bool:
    """Return whether this process receives the outcomes of requests."""
    return os.environ.get("RANK", "0") == "0"


def _find_shared_interface(world: TorchrunWorld) -> str:
    """Return the interface by which this node reaches the store, and so the other nodes."""
    name = find_interface(world.address, world.port)
    if name is None or name == "lo":
        raise ParframeError(
            "run",
            f"MASTER_ADDR {world.address}",
            "no network interface of this node reaches it"
            if name is None
            else "is the loopback of this node, which ranks on other nodes cannot reach",
            "set --master-addr to an address that all nodes reach, or set GLOO_SOCKET_IFNAME",
        )
    return name


def _connect_store(world: TorchrunWorld, timeout: float) -> Any:
    """Connect to torchrun's store."""
    try:
        _wait_for_store(
            world, min(timeout, _STORE_TIMEOUT)
        )  # before PyTorch, which prints many lines
        return TCPStore(
            world.address, world.port, is_master=False, timeout=timedelta(seconds=timeout)
        )
    except (DistError, RuntimeError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ParframeError(
            "run",
            f"rank {world.rank}",
            f"torchrun's store at {world.address}, port {world.port}, does not answer ({first})",
            "check that torchrun runs and that no firewall blocks the port",
        ) from error


def _wait_for_store(world: TorchrunWorld, timeout: float) -> None:
    """Wait until the store accepts connections."""
    end = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((world.address, world.port), timeout):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(_RETRY_INTERVAL)


def _environment_error(what: str) -> ParframeError:
    return ParframeError("run", "executor torchrun", what, _HINT)

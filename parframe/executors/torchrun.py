"""The executor `torchrun`: this process is one rank of a world that torchrun made."""

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
from parframe.executors.network_interface import interface_towards
from parframe.executors.world import Outcome, Seat, check_world, serve
from parframe.generation.requests import Request
from parframe.generation.settings import Settings
from parframe.plan import Plan

_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_NAMES = ("MASTER_ADDR", "TORCHELASTIC_RUN_ID")
_HINT = "start it by torchrun --nproc-per-node N -m parframe generate ..., and set none of them"
_REACHED = 30.0  # seconds in which the store must listen: torchrun has made it before the ranks
_AGAIN = 0.2
_runs = itertools.count()


@attrs.frozen
class World:
    """What torchrun tells a rank by its environment.

    Parameters
    ----------
    rank, size
        Which rank it is, and of how many.
    local_rank, local_size
        The same among the ranks of its host.
    address, port
        Where torchrun's store is.
    run
        What tells this run and this start of it from others.
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
    check_world("torchrun", world.size, plan)
    run = f"{world.run}.{next(_runs)}"
    os.environ.update(network(world, os.environ))
    seat = Seat(
        world.rank,
        world.size,
        world.local_rank,
        settings.timeout,
        store=PrefixStore(f"parframe/{run}", _store(world, settings.timeout)),
        run=run,
        threads=max(1, len(os.sched_getaffinity(0)) // world.local_size),
    )
    yield from serve(seat, plan, requests, settings)


def read_world(environment: Mapping[str, str]) -> World:
    """Read what torchrun tells.

    Parameters
    ----------
    environment
        The variables of the process.

    Raises
    ------
    ParframeError
        Of kind ``run``, if variables are missing or contradict each other.
    """
    missing = [name for name in (*_COUNTS, *_NAMES) if not environment.get(name)]
    if missing:
        raise _refused(f"torchrun has not set {', '.join(missing)}")
    counts = {}
    for name in _COUNTS:
        text = environment[name]
        if not (text.isascii() and text.isdecimal()):
            raise _refused(f"{name} is {text!r}, and not a number")
        counts[name] = int(text)
    for part, whole in (
        ("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ):  # fmt: skip
        if counts[part] >= counts[whole]:
            raise _refused(f"{part} is {counts[part]}, and {whole} is {counts[whole]}")
    for part, whole in (("LOCAL_RANK", "RANK"), ("LOCAL_WORLD_SIZE", "WORLD_SIZE")):
        if counts[part] > counts[whole]:
            raise _refused(f"{part} is {counts[part]}, above {whole}, which is {counts[whole]}")
    if not 0 < counts["MASTER_PORT"] < 2**16:
        raise _refused(f"MASTER_PORT is {counts['MASTER_PORT']}, and not from 1 to {2**16 - 1}")
    restarts = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return World(
        rank=counts["RANK"],
        size=counts["WORLD_SIZE"],
        local_rank=counts["LOCAL_RANK"],
        local_size=counts["LOCAL_WORLD_SIZE"],
        address=environment["MASTER_ADDR"],
        port=counts["MASTER_PORT"],
        run=f"{environment['TORCHELASTIC_RUN_ID']}.{restarts}",
    )


def network(world: World, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which gloo finds the other ranks, but those that are set."""
    found = {"TORCH_GLOO_LAZY_INIT": "1"}
    if "GLOO_SOCKET_IFNAME" not in environment:
        alone = world.size == world.local_size
        found["GLOO_SOCKET_IFNAME"] = "lo" if alone else _reaching(world)
    return {name: text for name, text in found.items() if name not in environment}


def hears() -> bool:
    """Whether this process is the one that is told what comes of requests."""
    return os.environ.get("RANK", "0") == "0"


def _reaching(world: World) -> str:
    """The interface by which this host reaches the store, and by it the other hosts."""
    name = interface_towards(world.address, world.port)
    if name is None or name == "lo":
        raise ParframeError(
            "run",
            f"MASTER_ADDR {world.address}",
            "no interface of this host reaches it"
            if name is None
            else "it is this host's own loopback, which ranks on other hosts cannot reach",
            "give --master-addr an address of a network of all hosts, or set GLOO_SOCKET_IFNAME",
        )
    return name


def _store(world: World, timeout: float) -> Any:
    """Torchrun's store; nothing is hosted here."""
    try:
        _reach(world, min(timeout, _REACHED))  # PyTorch itself would fill the screen
        return TCPStore(
            world.address, world.port, is_master=False, timeout=timedelta(seconds=timeout)
        )
    except (DistError, RuntimeError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ParframeError(
            "run",
            f"rank {world.rank}",
            f"torchrun's store at {world.address}, port {world.port}, does not answer ({first})",
            "see whether torchrun runs, and whether a firewall is between the hosts",
        ) from error


def _reach(world: World, timeout: float) -> None:
    """Wait until somebody listens where the store should be."""
    end = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((world.address, world.port), timeout):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(_AGAIN)


def _refused(what: str) -> ParframeError:
    return ParframeError("run", "executor torchrun", what, _HINT)

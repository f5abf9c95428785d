"""Ranks meet at a store and compare what must be the same on all before they begin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from parframe.errors import ParframeError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_SHOWN = 8


def meet(
    store: Store,
    *,
    rank: int,
    world: int,
    run: str,
    facts: Mapping[str, str],
    timeout: float,
) -> None:
    """Wait for all ranks, and refuse to begin if they are not of one mind.

    Parameters
    ----------
    store
        Where the ranks meet.
    rank, world
        Which rank this is, and of how many.
    run
        What tells this run from others; the same on every rank.
    facts
        What must be the same on all ranks, such as versions and the digest of the plan.
    timeout
        Seconds to wait for the others.

    Raises
    ------
    ParframeError
        If a rank did not come, came twice, belongs to another run, or has other facts.
    """
    if not 0 <= rank < world:
        raise ParframeError(
            "run", f"rank {rank}", f"there are {world} ranks", "see RANK and WORLD_SIZE"
        )
    _check_run(store, rank, run)
    _check_once(store, rank)
    mine = {"world": str(world), **facts}
    store.set(_key(rank), json.dumps(mine))
    if rank == 0:
        verdict = _compare(store, world, mine, timeout)
        store.set("parframe/verdict", json.dumps({"of": mine, "says": verdict}))
    else:
        _wait(store, ["parframe/verdict"], 1.2 * timeout + 1, f"rank {rank}", "rank 0 did not come")
        told = json.loads(store.get("parframe/verdict"))
        verdict = told["says"] or _difference(rank, mine, told["of"])
    if verdict:
        raise ParframeError("run", "rendezvous", verdict, "start the same on every rank")


def _check_run(store: Store, rank: int, run: str) -> None:
    """The first rank at the store says which run it is for."""
    found = store.compare_set("parframe/run", "", run).decode()
    if found != run:
        raise ParframeError(
            "run",
            f"rank {rank}",
            f"the rendezvous is that of another run ({found}, and not {run})",
            "end what is left of the other run, or meet elsewhere",
        )


def _check_once(store: Store, rank: int) -> None:
    if store.add(f"parframe/came/{rank}", 1) > 1:
        raise ParframeError(
            "run",
            f"rank {rank}",
            "it came to the rendezvous twice",
            "give every process a RANK of its own, and every run a rendezvous of its own",
        )


def _compare(store: Store, world: int, mine: Mapping[str, str], timeout: float) -> str:
    """What is not the same on all ranks, in words; nothing if all is well."""
    keys = [_key(rank) for rank in range(world)]
    try:
        _wait(store, keys, timeout, "", "")
    except ParframeError:
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
        shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if missing[_SHOWN:] else "")
        return f"{len(missing)} of {world} ranks did not come within {timeout:g} s: {shown}"
    differences = (
        _difference(rank, json.loads(text), mine) for rank, text in enumerate(store.multi_get(keys))
    )
    return "; ".join([found for found in differences if found][:_SHOWN])


def _difference(rank: int, theirs: Mapping[str, str], first: Mapping[str, str]) -> str:
    for name in sorted({*theirs, *first}):
        if theirs.get(name) != first.get(name):
            return (
                f"rank {rank} has {name} {theirs.get(name, 'missing')}, "
                f"but rank 0 has {first.get(name, 'missing')}"
            )
    return ""


def _wait(store: Store, keys: list[str], timeout: float, where: str, what: str) -> None:
    from torch.distributed import DistStoreError

    try:
        store.wait(keys, timedelta(seconds=timeout))
    except DistStoreError:
        raise ParframeError(
            "run", where, f"{what} within {timeout:g} s", "see what happened to it"
        ) from None


def _key(rank: int) -> str:
    return f"parframe/facts/{rank}"

"""Rendezvous of ranks at a store, where they compare what must be equal on all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from parframe.errors import ParframeError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_SHOWN = 8
_VERDICT = "parframe/verdict"
"""Key of rank 0's facts and of what it found different."""


def join_rendezvous(
    store: Store, *, rank: int, world: int, run: str, facts: Mapping[str, str], timeout: float
) -> None:
    """Wait at most ``timeout`` seconds for all ranks, and check that their facts are equal.

    ``run`` identifies the run; ``facts`` are values such as versions and the digest of the plan.

    Raises
    ------
    ParframeError
        If a rank does not arrive, arrives twice, belongs to another run, or has other facts.
    """
    if not 0 <= rank < world:
        raise ParframeError(
            "run", f"rank {rank}", f"there are {world} ranks", "check RANK and WORLD_SIZE"
        )
    _check_run(store, rank, run)
    _check_unique(store, rank)
    mine = {"world": str(world), **facts}
    store.set(_key(rank), json.dumps(mine))
    if rank == 0:
        verdict = _compare_facts(store, world, mine, timeout)
        store.set(_VERDICT, json.dumps({"facts": mine, "verdict": verdict}))
    else:
        _wait(store, [_VERDICT], 1.2 * timeout + 1, f"rank {rank}", "rank 0 did not arrive")
        answer = json.loads(store.get(_VERDICT))
        verdict = answer["verdict"] or _describe_difference(rank, mine, answer["facts"])
    if verdict:
        raise ParframeError("run", "rendezvous", verdict, "start the same on every rank")


def _check_run(store: Store, rank: int, run: str) -> None:
    """Check that the store is of this run, which the first rank at the store sets."""
    other = store.compare_set("parframe/run", "", run).decode()
    if other != run:
        raise ParframeError(
            "run",
            f"rank {rank}",
            f"the rendezvous is of another run ({other}, not {run})",
            "stop the processes of the other run, or use another address",
        )


def _check_unique(store: Store, rank: int) -> None:
    if store.add(f"parframe/arrived/{rank}", 1) > 1:
        raise ParframeError(
            "run",
            f"rank {rank}",
            "it joined the rendezvous twice",
            "give every process its own RANK, and every run its own rendezvous address",
        )


def _compare_facts(store: Store, world: int, mine: Mapping[str, str], timeout: float) -> str:
    """Describe the differences between ranks; return an empty text without any."""
    keys = [_key(rank) for rank in range(world)]
    try:
        _wait(store, keys, timeout, "", "")
    except ParframeError:
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
        shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if missing[_SHOWN:] else "")
        return f"{len(missing)} of {world} ranks did not arrive within {timeout:g} s: {shown}"
    differences = (
        _describe_difference(rank, json.loads(text), mine)
        for rank, text in enumerate(store.multi_get(keys))
    )
    return "; ".join([text for text in differences if text][:_SHOWN])


def _describe_difference(rank: int, own: Mapping[str, str], first: Mapping[str, str]) -> str:
    for name in sorted({*own, *first}):
        if own.get(name) != first.get(name):
            return (
                f"rank {rank} has {name} {own.get(name, 'missing')}, "
                f"but rank 0 has {first.get(name, 'missing')}"
            )
    return ""


def _wait(store: Store, keys: list[str], timeout: float, where: str, what: str) -> None:
    from torch.distributed import DistStoreError

    try:
        store.wait(keys, timedelta(seconds=timeout))
    except DistStoreError:
        raise ParframeError(
            "run", where, f"{what} within {timeout:g} s", "see the output of that rank"
        ) from None


def _key(rank: int) -> str:
    return f"parframe/facts/{rank}"

"""A folder with one file for every rank, written for a plan and read by that plan alone."""

from __future__ import annotations

from pathlib import Path

from parframe.plan import Plan
from parframe.weights.origin import Origin
from parframe.weights.strided import View

INDEX = "shards.json"


def is_sharded(folder: Path) -> bool:
    """Whether a path is a folder of shards."""
    return (folder / INDEX).is_file()


def shard_of(plan: Plan, rank: int, folder: Path) -> tuple[Origin, dict[str, View]]:
    """Stub."""
    raise NotImplementedError


def write_shards() -> None:
    """Stub."""

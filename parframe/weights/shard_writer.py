"""Weights written as one file a rank: into a folder beside, which is then renamed."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import torch

from parframe.atomic_files import cannot_write, new_folder
from parframe.errors import ParframeError
from parframe.plan import Plan, plan_digest
from parframe.plan.plan_folder import FILE
from parframe.plan.plan_json import dump_plan
from parframe.weights.checkpoint_folder import SHARDS
from parframe.weights.file_reader import Progress
from parframe.weights.rank_files import SCHEMA, file_name, stored_names
from parframe.weights.rank_weights import OpenedWeights, open_weights, read_weights
from parframe.weights.sources import is_random


@attrs.frozen
class WrittenShards:
    """What was written.

    Parameters
    ----------
    files
        For every rank the name of its file; ranks that hold the same have the same.
    bytes
        The bytes of each file.
    remarks
        What its user should know of the weights, a sentence each.
    """

    files: tuple[str, ...]
    bytes: dict[str, int]
    remarks: tuple[str, ...]


def write_shards(
    plan: Plan,
    weights: Any,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    pickled: bool = False,
    extra: bool = False,
) -> WrittenShards:
    """Write what each rank holds of the weights into a file of its own.

    Ranks that hold the same share one file: ``shards.json`` names the file of every rank. The
    plan is written beside them, so that the folder can be given as the plan and as its weights.

    Parameters
    ----------
    plan
        The plan.
    weights, dtype, pickled, extra
        As for `parframe.weights.read_weights`.
    folder
        The folder to make; if it exists, it must be empty.
    progress
        Told the bytes that were written and those that there are in all.

    Returns
    -------
    Written
        The files.

    Raises
    ------
    ParframeError
        Of kind ``output``, if the folder cannot be written or is being written; of kind
        ``weights``, if these do not fit. Nothing is left behind then.
    """
    target = Path(os.path.realpath(folder))
    check_writable(target)
    given = weights if is_random(weights) or isinstance(weights, OpenedWeights) else None
    given = given or open_weights(plan.graph, weights, pickled, extra)
    with new_folder(target, check_writable, wait=False) as made:
        files = _write_all(plan, given, made, dtype, progress)
        _write_index(plan, files, made)
        sizes = {name: (made / name).stat().st_size for name in files}
        made.rename(target)
    return WrittenShards(
        files, sizes, given.fit.remarks if isinstance(given, OpenedWeights) else ()
    )


def check_writable(target: Path) -> None:
    """Refuse a path that shards cannot be written to.

    Raises
    ------
    ParframeError
        Of kind ``output``.
    """
    try:
        filled = target.exists() and (not target.is_dir() or any(target.iterdir()))
        parent = target.parent.is_dir() and os.access(target.parent, os.W_OK)
    except OSError as error:
        raise cannot_write(target, str(error.strerror)) from error
    if filled:
        raise ParframeError(
            "output", str(target), "is there already", "choose another folder, or delete this one"
        )
    if not parent:
        raise ParframeError(
            "output",
            str(target),
            f"{target.parent} is not a folder to write to",
            "choose another folder",
        )


def _write_all(
    plan: Plan, given: Any, folder: Path, dtype: torch.dtype | None, progress: Progress | None
) -> tuple[str, ...]:
    owners = _owners(plan)
    sizes = {rank: _size(plan, rank) for rank in set(owners)}
    before, total = 0, sum(sizes.values())
    for rank in sorted(sizes):

        def told(done: int, of: int, rank: int = rank, before: int = before) -> None:
            if progress is not None:
                progress(before + sizes[rank] * done // max(of, 1), total)

        tensors = read_weights(plan, rank, given, dtype=dtype, progress=told)
        _write_one(plan, rank, tensors, folder)
        before += sizes[rank]
    if progress is not None:
        progress(total, total)
    return tuple(file_name(rank) for rank in owners)


def _owners(plan: Plan) -> list[int]:
    """For every rank the first that holds the same."""
    first: dict[Any, int] = {}
    ranks = range(plan.mesh.size)
    held = (tuple(sorted((n, p.whole, p.runs) for n, p in plan.weights(r).items())) for r in ranks)
    return [first.setdefault(key, rank) for rank, key in enumerate(held)]


def _size(plan: Plan, rank: int) -> int:
    return sum(part.elements for part in plan.weights(rank).values())


def _write_one(plan: Plan, rank: int, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    wanted = plan.weights(rank)
    parameters = plan.graph.parameters
    stored = {n: p for n, p in wanted.items() if parameters[p.whole].data is None}
    content = {own: _alone_in_memory(tensors[own]) for own in set(stored_names(stored).values())}
    metadata = {
        "format": "pt",
        "parframe": version("parframe"),
        "plan": plan_digest(plan),
        "mesh": str(plan.mesh),
        "rank": str(rank),
    }
    path = folder / file_name(rank)
    try:
        save_file(content, path, metadata)
    except (SafetensorError, OSError) as error:
        raise cannot_write(path, str(error)) from error


def _alone_in_memory(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in row-major order in memory of its own."""
    own = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor.contiguous() if own else tensor.clone(memory_format=torch.contiguous_format)


def _write_index(plan: Plan, files: tuple[str, ...], folder: Path) -> None:
    content = {
        "schema": SCHEMA,
        "parframe": version("parframe"),
        "plan": plan_digest(plan),
        "mesh": str(plan.mesh),
        "files": files,
    }
    (folder / SHARDS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / FILE).write_text(dump_plan(plan), encoding="utf-8", newline="\n")
    readable = (folder / SHARDS).stat().st_mode  # the library makes files for their owner alone
    for name in files:
        (folder / name).chmod(readable)

"""Writer of weights as one file for each rank, into a temporary folder that is then renamed."""

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
from parframe.weights.checkpoint_folder import SHARD_INDEX
from parframe.weights.file_reader import Progress
from parframe.weights.random_weights import is_random
from parframe.weights.rank_files import SCHEMA, file_name, stored_names
from parframe.weights.rank_weights import OpenedWeights, open_weights, read_weights


@attrs.frozen
class WrittenShards:
    """Files that were written.

    - ``files``: the name of every rank's file; ranks with equal weights share a file.
    - ``bytes``: the bytes of each file.
    - ``remarks``: remarks on the weights for the user, a sentence each.
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
    """Write the weights of each rank into a file of its own.

    Ranks with equal weights share one file: ``shards.json`` names the file of every rank. The plan
    is written to the same folder, which then can be used as the plan and as its weights.

    - ``weights``, ``dtype``, ``pickled``, ``extra``: as for `parframe.weights.read_weights`.
    - ``folder``: the folder to create; if it exists, it must be empty.
    - ``progress``: called with the bytes that were written, and the total.

    Raises
    ------
    ParframeError
        Of kind ``output``, if the folder cannot be written or another run is writing it; of kind
        ``weights``, if the weights are incompatible. No file remains then.
    """
    target = Path(os.path.realpath(folder))
    check_writable(target)
    opened = weights if is_random(weights) or isinstance(weights, OpenedWeights) else None
    opened = opened or open_weights(plan.graph, weights, pickled, extra)
    with new_folder(target, check_writable, wait=False) as temporary:
        files = _write_all(plan, opened, temporary, dtype, progress)
        _write_index(plan, files, temporary)
        sizes = {name: (temporary / name).stat().st_size for name in files}
        temporary.rename(target)
    return WrittenShards(
        files, sizes, opened.matched.remarks if isinstance(opened, OpenedWeights) else ()
    )


def check_writable(target: Path) -> None:
    """Refuse a path that shards cannot be written to.

    Raise ``ParframeError`` of kind ``output``.
    """
    try:
        filled = target.exists() and (not target.is_dir() or any(target.iterdir()))
        parent = target.parent.is_dir() and os.access(target.parent, os.W_OK)
    except OSError as error:
        raise cannot_write(target, str(error.strerror)) from error
    if filled:
        raise ParframeError(
            "output", str(target), "already exists", "use another folder, or delete this one"
        )
    if not parent:
        raise ParframeError(
            "output", str(target), f"{target.parent} is not a writable folder", "use another folder"
        )


def _write_all(
    plan: Plan, opened: Any, folder: Path, dtype: torch.dtype | None, progress: Progress | None
) -> tuple[str, ...]:
    first_ranks = _first_equal_ranks(plan)
    sizes = {rank: _elements(plan, rank) for rank in set(first_ranks)}
    before, total = 0, sum(sizes.values())
    for rank in sorted(sizes):

        def report(done: int, of: int, rank: int = rank, before: int = before) -> None:
            if progress is not None:
                progress(before + sizes[rank] * done // max(of, 1), total)

        tensors = read_weights(plan, rank, opened, dtype=dtype, progress=report)
        _write_rank_file(plan, rank, tensors, folder)
        before += sizes[rank]
    if progress is not None:
        progress(total, total)
    return tuple(file_name(rank) for rank in first_ranks)


def _first_equal_ranks(plan: Plan) -> list[int]:
    """Return for every rank the first rank with equal slices."""
    first: dict[Any, int] = {}
    ranks = range(plan.mesh.size)
    slices = (
        tuple(sorted((n, p.whole, p.runs) for n, p in plan.weights(r).items())) for r in ranks
    )
    return [first.setdefault(key, rank) for rank, key in enumerate(slices)]


def _elements(plan: Plan, rank: int) -> int:
    return sum(part.elements for part in plan.weights(rank).values())


def _write_rank_file(plan: Plan, rank: int, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    wanted = plan.weights(rank)
    parameters = plan.graph.parameters
    stored = {n: p for n, p in wanted.items() if parameters[p.whole].data is None}
    content = {own: _with_own_storage(tensors[own]) for own in set(stored_names(stored).values())}
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


def _with_own_storage(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in row-major order, with a storage of its own."""
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
    (folder / SHARD_INDEX).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / FILE).write_text(dump_plan(plan), encoding="utf-8", newline="\n")
    # safetensors makes files for their owner alone
    readable = (folder / SHARD_INDEX).stat().st_mode
    for name in files:
        (folder / name).chmod(readable)

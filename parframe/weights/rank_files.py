"""Folder with a file of weights for every rank of one plan: its index and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parframe.errors import ParframeError
from parframe.json_input import read_json
from parframe.plan import Plan, Slices, plan_digest
from parframe.weights.checkpoint_folder import SHARD_INDEX
from parframe.weights.safetensors_header import read_header
from parframe.weights.sources import WeightSource
from parframe.weights.strided_views import View, whole_view

SCHEMA = 1


def is_rank_folder(folder: Path) -> bool:
    """Return whether a path is a folder of shards."""
    return (folder / SHARD_INDEX).is_file()


def file_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank-{rank:05d}.safetensors"


def stored_names(wanted: Mapping[str, Slices]) -> dict[str, str]:
    """Return for each name of a device its stored name; equal slices are stored once."""
    first: dict[Any, str] = {}
    return {name: first.setdefault((part.whole, part.runs), name) for name, part in wanted.items()}


def read_rank_file(plan: Plan, rank: int, folder: Path) -> tuple[WeightSource, dict[str, View]]:
    """Return the tensors in a rank's file, and for each name of the device its view.

    Raise ``ParframeError`` of kind ``weights``, if the folder is of another plan, or malformed.
    """
    wanted = {
        name: part
        for name, part in plan.weights(rank).items()
        if plan.graph.parameters[part.whole].data is None
    }
    file = folder / _files(plan, folder)[rank]
    tensors = read_header(file).tensors
    views, wrong = {}, []
    for name, own in stored_names(wanted).items():
        if own not in tensors or tensors[own].shape != wanted[name].local_shape:
            wrong.append(name)
            continue
        views[name] = whole_view(own, tensors[own].shape, tensors[own].dtype)
    if wrong:
        count = f"{len(wrong)} of {len(wanted)} tensors are missing or of another shape"
        raise _invalid(file, f"{count}: {', '.join(wrong)}")
    return WeightSource(str(file), dict(tensors)), views


def check_rank_folder(plan: Plan, folder: Path) -> None:
    """Refuse a folder of shards of another plan; no rank's file is read."""
    _files(plan, folder)


def _files(plan: Plan, folder: Path) -> list[str]:
    """Return the name of every rank's file."""
    index = folder / SHARD_INDEX
    content = read_json(index, "weights")
    match content:
        case {"schema": int(schema)} if schema != SCHEMA:
            raise _invalid(index, f"has schema {schema}, this version reads schema {SCHEMA}")
        case {"plan": str(digest), "mesh": str(mesh), "files": list(files)}:
            pass
        case _:
            raise _invalid(index, "is malformed")
    own = plan_digest(plan)
    if digest != own:
        raise ParframeError(
            "weights",
            str(folder),
            f"has the shards of another plan: {digest[:20]}..., on the mesh {mesh[:60]}; "
            f"this plan is {own[:20]}..., on {plan.mesh}",
            "use the plan in that folder, or write the shards of this plan with parframe shard",
        )
    names = {file_name(number) for number in range(len(files))}
    if len(files) != plan.mesh.size or not all(file in names for file in files):
        raise _invalid(index, "is malformed")
    return [str(file) for file in files]


def _invalid(file: Path, what: str) -> ParframeError:
    return ParframeError("weights", str(file), what, "write the folder again with parframe shard")

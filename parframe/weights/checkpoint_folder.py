"""Folder of safetensors from any source: the file of each tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from parframe.errors import ParframeError
from parframe.json_input import read_json
from parframe.weights.safetensors_header import StoredTensor, read_header

INDEX = "model.safetensors.index.json"

SHARD_INDEX = "shards.json"
"""File that marks a folder with a file for every rank of a plan."""


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of a folder, by its name.

    Raise ``ParframeError`` of kind ``weights``, if there are no tensors, a file is malformed, or
    the index does not match the files.
    """
    files = weight_files(folder)
    headers = {file: read_header(file).tensors for file in sorted(set(files.values()))}
    absent = sorted(name for name, file in files.items() if name not in headers[file])
    if absent:
        raise ParframeError(
            "weights",
            str(folder / INDEX),
            f"{files[absent[0]].name} lacks {len(absent)} of the tensors that the index names,"
            f" such as {absent[0][:100]!r}",
            "download the index and the files again",
        )
    return {name: headers[file][name] for name, file in files.items()}


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor in a folder of safetensors, or in one such file.

    The names are those of the index, or of all files without an index.

    Raise ``ParframeError`` of kind ``weights`` if there are no files, or the index names a file
    outside the folder.
    """
    if folder.is_file():
        return _files_by_name([folder])
    if (folder / SHARD_INDEX).is_file():
        raise ParframeError(
            "weights",
            str(folder),
            "has the shards of a plan's ranks, not the whole weights",
            "use the folder that they were made from",
        )
    index = folder / INDEX
    if index.is_file():
        return _files_in_index(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        what = "has no .safetensors file" if folder.is_dir() else "is not a folder"
        raise ParframeError("weights", str(folder), what, "use a folder with the model's weights")
    return _files_by_name(files)


def _files_by_name(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        for name in read_header(file).tensors:
            if name in found:
                raise ParframeError(
                    "weights",
                    str(file),
                    f"has {name[:100]!r}, which is also in {found[name].name}",
                    f"remove one of the files, or add {INDEX}",
                )
            found[name] = file
    return found


def _files_in_index(folder: Path, index: Path) -> dict[str, Path]:
    content = read_json(index, "weights")
    entries = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ParframeError("weights", str(index), "has no weight_map", "download it again")
    found = {}
    for name, file in entries.items():
        plain = isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors")
        if not plain:
            raise ParframeError(
                "weights",
                f"{index}, {name[:100]}",
                f"{str(file)[:100]!r} is not a .safetensors file of this folder",
                "download the index again",
            )
        found[name] = folder / file
    for path in sorted(set(found.values())):
        if not path.is_file():
            raise ParframeError(
                "weights", str(index), f"{path.name} is missing", "download it to the folder"
            )
    return found

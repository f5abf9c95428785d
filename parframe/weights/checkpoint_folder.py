"""A folder of safetensors as a stranger's data: which tensor lies in which of its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from parframe.errors import ParframeError
from parframe.json_input import read_json
from parframe.weights.safetensors_header import StoredTensor, read_header

INDEX = "model.safetensors.index.json"

SHARDS = "shards.json"
"""Says of a folder that it holds a file for every rank of a plan."""


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder, by its name.

    Raises
    ------
    ParframeError
        Of kind ``weights``, if there are none, a file is broken, or the index is not one of this
        folder's files.
    """
    files = weight_files(folder)
    headers = {file: read_header(file).tensors for file in sorted(set(files.values()))}
    absent = sorted(name for name, file in files.items() if name not in headers[file])
    if absent:
        raise ParframeError(
            "weights",
            str(folder / INDEX),
            f"{files[absent[0]].name} has not {len(absent)} of the tensors that the index names,"
            f" such as {absent[0][:100]!r}",
            "download the index and the files again",
        )
    return {name: headers[file][name] for name, file in files.items()}


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a folder of safetensors.

    Parameters
    ----------
    folder
        The model's folder, or one file of safetensors.

    Returns
    -------
    dict
        For every name of a tensor, its file: as the index says, or all there are without one.

    Raises
    ------
    ParframeError
        Of kind ``weights`` if there are none, or the index names a file outside the folder.
    """
    if folder.is_file():
        return _names_in([folder])
    if (folder / SHARDS).is_file():
        raise ParframeError(
            "weights",
            str(folder),
            "holds the shards of a plan's ranks, not the whole weights",
            "give the folder that they were made of",
        )
    index = folder / INDEX
    if index.is_file():
        return _indexed(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        what = "has no .safetensors" if folder.is_dir() else "is not a folder"
        raise ParframeError("weights", str(folder), what, "give a folder with the model's weights")
    return _names_in(files)


def _names_in(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        for name in read_header(file).tensors:
            if name in found:
                raise ParframeError(
                    "weights",
                    str(file),
                    f"has {name[:100]!r}, and so has {found[name].name}",
                    f"leave one of them in the folder, or add {INDEX}",
                )
            found[name] = file
    return found


def _indexed(folder: Path, index: Path) -> dict[str, Path]:
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

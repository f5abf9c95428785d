"""Loader of .pt2 archives of torch.export, which unpickles nothing."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.json_input import parse_json
from parframe.loading.buffer_data import encode_tensor
from parframe.loading.flat_graph import to_operator_graph
from parframe.loading.in_place import AliasedWriteError
from parframe.loading.pt2_model import DTYPES, ModelReader
from parframe.loading.simplify import simplify

_LARGEST_FILE = 1 << 28
_MOST_COMPRESSION = 100
_MODEL = re.compile(r"^[^/]+/models/[^/]+\.json$")


def load_archive(path: Path) -> OperatorGraph:
    """Load a saved export without running anything in it.

    The first dim of an input is named ``batch``, and the second of token ids ``sequence``, where
    their sizes may vary. Weights and example inputs are not read.

    Raises
    ------
    ParframeError
        Of kind ``load`` if the file is not such an archive, or has contents that can only be read
        by unpickling.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            model = _read_model(archive, path)
            reader = ModelReader(model, lambda name: _read_constant(archive, name))
            graph = simplify(reader.read())
    except (OSError, zipfile.BadZipFile) as error:
        raise _archive_error(path, f"cannot be read ({error})") from error
    except AliasedWriteError as error:
        raise ParframeError(
            "load",
            str(path),
            f"{error} writes into a tensor that is used elsewhere",
            "save exported.run_decompositions({}) instead",
        ) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise _archive_error(path, f"is not an archive of torch.export ({reason})") from error
    return to_operator_graph(graph, path.name)


def _archive_error(path: Path, what: str) -> ParframeError:
    return ParframeError(
        "load",
        str(path),
        what,
        "save the model again with torch.export.save of torch 2.11 or newer",
    )


def _read_model(archive: zipfile.ZipFile, path: Path) -> Any:
    """Read the JSON of the archive's one model."""
    models = [info for info in archive.infolist() if _MODEL.match(info.filename)]
    if len(models) != 1:
        raise _archive_error(path, f"has {len(models)} models in JSON, not one")
    return parse_json(_read_file(archive, models[0].filename).decode("utf-8"), "load")


def _read_file(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of the archive, within limits of its size and compression."""
    info = archive.getinfo(name)
    if info.file_size > _LARGEST_FILE:
        raise ParframeError(
            "load", name, f"is larger than {_LARGEST_FILE} bytes", "save a smaller model"
        )
    if info.file_size > _MOST_COMPRESSION * max(info.compress_size, 1 << 10):
        raise ParframeError(
            "load",
            name,
            f"is compressed more than {_MOST_COMPRESSION} times",
            "save the model with torch.export.save",
        )
    return archive.read(name)


def _read_constant(archive: zipfile.ZipFile, name: str) -> str:
    """Read the contents of a tensor that the archive stores as plain bytes, as base64 text."""
    root = archive.namelist()[0].split("/")[0]
    folder = f"{root}/data/constants"
    config_name = re.compile(rf"{re.escape(folder)}/[^/]+_config\.json$")
    config = next(file for file in archive.namelist() if config_name.match(file))
    entry = parse_json(_read_file(archive, config).decode("utf-8"), "load")["config"][name]
    if entry["use_pickle"]:
        raise ParframeError(
            "load",
            name,
            "the archive stores it as a pickle, which is never read",
            "save a model whose constants are plain tensors only",
        )
    meta = entry["tensor_meta"]
    dtype = getattr(torch, DTYPES[meta["dtype"]])
    sizes, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
    content = bytearray(_read_file(archive, f"{folder}/{entry['path_name']}"))
    if not content:
        return ""
    flat = torch.frombuffer(content, dtype=dtype)
    return encode_tensor(flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]))

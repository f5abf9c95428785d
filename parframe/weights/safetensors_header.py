"""Header of a safetensors file, checked: its tensors, and the bytes of each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.json_input import parse_json

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip

DTYPES = frozenset(_CODES.values())
"""PyTorch's names of the dtypes that can be read; tensors of other dtypes are only listed."""


@attrs.frozen
class StoredTensor:
    """Tensor in a file: its dtype, its shape and where its bytes start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int


@attrs.frozen
class SafetensorsHeader:
    """Header of a file: its tensors, its metadata, and its length in bytes."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    bytes: int


def read_header(file: Path) -> SafetensorsHeader:
    """Read and check the header of a file.

    The safetensors library opens the file first and checks that offsets fit and do not overlap.

    Raise ``ParframeError`` of kind ``weights``, if the file is truncated, malformed or not one of
    safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
        with file.open("rb", buffering=0) as opened:
            length = int.from_bytes(opened.read(8), "little")
            content = parse_json(opened.read(length), "weights")
            size = os.fstat(opened.fileno()).st_size
    except (SafetensorError, OSError, ValueError) as error:
        raise _malformed(file, f"cannot be read ({error})") from error
    metadata = content.pop("__metadata__", None) or {}
    tensors = {
        name: _stored_tensor(file, name, entry, 8 + length, size) for name, entry in content.items()
    }
    return SafetensorsHeader(tensors, metadata, 8 + length)


def _stored_tensor(file: Path, name: str, entry: Any, base: int, size: int) -> StoredTensor:
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise _malformed(file, f"its header is malformed at {name[:100]!r}")
    dtype = _CODES.get(code, code)
    fits = 0 <= start <= stop <= size - base
    if code in _CODES:
        fits = fits and stop - start == math.prod(shape) * itemsize(dtype)
    if not fits:
        raise _malformed(file, f"the bytes of {name[:100]!r} do not match its shape or the file")
    return StoredTensor(name, dtype, tuple(shape), file, base + start)


def itemsize(dtype: str) -> int:
    """Return the bytes of an element."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    return kind.itemsize


def _malformed(file: Path, what: str) -> ParframeError:
    return ParframeError("weights", str(file), what, "download or write the file again")

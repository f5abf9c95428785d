"""Where an operator came from: the module's path and the line of the model's own code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n?([^\n]*)')
_NOISE = re.compile(r"(?:^|\.)(?:slice\([^)]*\)|L__self__|_modules|_orig_mod)(?=\.|$)")


def model_files(modules: Iterable[Any]) -> frozenset[str]:
    """The files that define these modules' classes, PyTorch's own left out."""
    found = set()
    for kind in {type(module) for module in modules}:
        if kind.__module__.split(".")[0] != "torch":
            try:
                found.add(inspect.getfile(kind))
            except (TypeError, OSError):
                continue
    return frozenset(found)


def module_path(stack: Mapping[str, Any] | None) -> str:
    """The innermost module's path in a node's module stack."""
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return clean_path(path)


def clean_path(path: str) -> str:
    """A module path without what tracing adds to it."""
    return _NOISE.sub("", path.split("@")[0]).strip(".")


def source_line(trace: str | None, files: frozenset[str]) -> str:
    """The innermost line of a stack trace that lies in one of the files, or in none of torch's."""
    frames = _FRAME.findall(trace or "")
    for path, line, text in reversed(frames):
        if path in files or (not files and "/torch/" not in path):
            return f"{Path(path).name}:{line}: {text.strip()}"
    return ""


def failing_line(error: BaseException, files: frozenset[str]) -> str:
    """The deepest line in these files that an error passed through, or ``""``."""
    found = ""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        found = _deepest(current.__traceback__, files) or found
        current = current.__cause__ or current.__context__
    return found


def _deepest(trace: TracebackType | None, files: frozenset[str]) -> str:
    found = ""
    for frame in inspect.getinnerframes(trace) if trace else []:
        if frame.filename in files:
            text = (frame.code_context or [""])[0].strip()
            found = f"{Path(frame.filename).name}:{frame.lineno}: {text}"
    return found

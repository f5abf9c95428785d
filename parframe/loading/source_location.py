"""Source location of an operator: its module's path, and the line of the model's code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n?([^\n]*)')
_NOISE = re.compile(r"(?:^|\.)(?:slice\([^)]*\)|L__self__|_modules|_orig_mod)(?=\.|$)")


def model_files(modules: Iterable[Any]) -> frozenset[str]:
    """Return the files that define the classes of modules, without those of PyTorch."""
    files = set()
    for kind in {type(module) for module in modules}:
        if kind.__module__.split(".")[0] != "torch":
            try:
                files.add(inspect.getfile(kind))
            except (TypeError, OSError):
                continue
    return frozenset(files)


def module_path(stack: Mapping[str, Any] | None) -> str:
    """Return the path of the innermost module in a node's module stack."""
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return clean_path(path)


def clean_path(path: str) -> str:
    """Remove from a module path the parts that tracing adds."""
    return _NOISE.sub("", path.split("@")[0]).strip(".")


def source_line(trace: str | None, files: frozenset[str]) -> str:
    """Return the innermost line of a stack trace that is in one of the files.

    Without files it is the innermost line outside PyTorch.
    """
    frames = _FRAME.findall(trace or "")
    for path, line, text in reversed(frames):
        if path in files or (not files and "/torch/" not in path):
            return f"{Path(path).name}:{line}: {text.strip()}"
    return ""


def failing_line(error: BaseException, files: frozenset[str]) -> str:
    """Return the innermost line of some files that an error passed through, or ``""``."""
    line = ""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        trace = current.__traceback__
        for frame in inspect.getinnerframes(trace) if trace else []:
            if frame.filename in files:
                text = (frame.code_context or [""])[0].strip()
                line = f"{Path(frame.filename).name}:{frame.lineno}: {text}"
        current = current.__cause__ or current.__context__
    return line

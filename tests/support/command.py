"""Calls of the command line within a test, and a small plan to call it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import handwritten
import pytest

from parframe import graph_json
from parframe.cli import group
from parframe.cli.failures import run


@attrs.frozen
class Called:
    """Result of a command: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


class Caller:
    """Caller of commands that captures their output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str | Path) -> Called:
        self.capsys.readouterr()
        code = run(group, [str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return Called(code, out, err)


def write_spec(folder: Path, text: str = 'parallel = "TP2"\noutput = "out"\n') -> Path:
    """Write a spec, and the handwritten graph of two matrix products that it names."""
    graph_json.write_graph(handwritten.mlp(), folder / "graph.json")
    path = folder / "spec.toml"
    path.write_text(f'model = "graph.json"\n{text}', encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

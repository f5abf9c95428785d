"""Every path, module, command and option that a text of the project names exists."""

import ast
import importlib.util
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest

from parframe.cli import COMMANDS

ROOT = Path(__file__).parents[1]
FOLDERS = ("parframe", "plugins", "tests", "benchmarks", "docs", "specs", "examples")

PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./*{{}},-]*[\w*/}}]")
MODULE = re.compile(r"(?<![\w./\"-])(?:parframe|benchmarks)(?:\.[a-z_]\w*)+")
TARGET = re.compile(r"`make ([a-z]+)")
COMMAND = re.compile(r"(?:`|\$ )parframe ([a-z]+)((?: [^`\n]*)?)")
OPTION = re.compile(r"(?<=\s)--?[a-z][a-z-]*")

OPERATORS = re.compile(r"parframe\.[a-z_]+(?:\.default)?$")
"""Operators of graphs are named like modules; their own test is that of the table of rules."""


def texts() -> list[Path]:
    """Every text of the project that names things."""
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")]
    pages += [path for folder in ("docs", "specs") for path in (ROOT / folder).rglob("*.*")]
    pages += [
        path
        for folder in ("parframe", "plugins", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".toml"}
    ]
    return [p for p in pages if p.is_file() and not {"out", "__pycache__"} & set(p.parts)]


def prose(path: Path) -> str:
    """The text of a file; of code its docstrings, comments and messages."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return source
    strings = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    comments = re.findall(r"#.*", source)
    return "\n".join((*strings, *comments))


@cache
def options(command: str) -> frozenset[str]:
    """The options of a command."""
    found: click.Command = import_module(f"parframe.cli.{command}").command
    names = (name for option in found.params for name in (*option.opts, *option.secondary_opts))
    return frozenset(names) | {"--help", "-h"}


def is_module_or_name(dotted: str) -> bool:
    """Return whether a dotted name is a module, or a name in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        if found is not None:
            value = import_module(name)
            for part in parts[end:]:
                if not hasattr(value, part):
                    return part in getattr(value, "__annotations__", {})
                value = getattr(value, part)
            return True
    return False


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_text_names_exists(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    text = prose(path)
    paths = {found.rstrip(".,") for found in PATH.findall(text)}
    if path.suffix == ".py":  # keys of a rendezvous store look like paths too
        paths = {p for p in paths if Path(p).suffix in {".py", ".md", ".toml"}}
    missing = [p for p in sorted(paths) if not list(ROOT.glob(p.rstrip("/"))) and "out/" not in p]
    assert missing == [], "no such path"
    assert [t for t in TARGET.findall(text) if f"\n{t}:" not in makefile()] == [], "no such target"
    for command, rest in COMMAND.findall(text):
        assert command in COMMANDS or command in ("command", "plan"), f"no command {command}"
        unknown = set(OPTION.findall(rest.partition("#")[0])) - options(command)
        assert unknown == set(), f"no such option of parframe {command}"
    if path.suffix != ".py" or path.parent.name != "rules":
        dotted = {m for m in MODULE.findall(text) if not OPERATORS.fullmatch(m)}
        assert [m for m in sorted(dotted) if not is_module_or_name(m)] == [], "no such name"


@cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def test_each_change_that_contributing_names_needs_three_files_at_most():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1:3] for row in page.splitlines() if row.startswith("| ")][2:]
    assert len(rows) >= 13
    for change, places in rows:
        files = re.findall(r"`([\w./]+)`", places)
        assert 1 <= len(files) <= 3, change
        assert [name for name in files if not (ROOT / name).exists()] == [], change

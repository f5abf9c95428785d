"""Runs the code blocks of a page of the documentation, in the current folder and in order.

`python tests/support/documentation.py PAGE`: Python is executed (as a doctest where it begins with
`>>>`),
`$ parframe ...` is run and what stands below is compared, specs are read, and a block whose first
line is `# file: NAME` becomes that file. Ends with the first block that fails.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from parframe import Spec
from parframe.cli import group
from parframe.cli.failures import run

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# file: ([\w./-]+)\n")
_MADE = re.compile(r"<!-- begin ([\w-]+) -->.*?<!-- end \1 -->", re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the text of every code block that is not made from the code."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(_MADE.sub("", text))]


def execute(language: str, text: str, names: dict[str, Any]) -> None:
    """Run one block."""
    file = _FILE.match(text)
    if file:
        _write(Path(file[1]), text[file.end() :])
    if language == "python" and text.startswith(">>>"):
        _doctest(text, names)
    elif language == "python" and not file:
        exec(compile(text, "block", "exec"), names)
    elif language == "toml" and not (file and file[1] == "pyproject.toml"):
        Spec.parse(text).placing()
    elif language == "console":
        for command, below in _commands(text):
            _run(command, below)
    elif language not in ("python", "toml", "text"):
        raise SystemExit(f"a block of {language or 'no language'} is not executed:\n{text}")


def _doctest(text: str, names: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(text, names, "block", None, 0)
    report = io.StringIO()
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.DocTestRunner(verbose=False, optionflags=flags).run(
        test, out=report.write, clear_globs=False
    )
    names.update(test.globs)
    if result.failed:
        raise SystemExit(report.getvalue())


def _commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the output below it."""
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in text.split("$ ") if part]


def _run(command: str, below: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        if not set(arguments) <= set(targets):
            raise SystemExit(f"no such target: {command}")
        return
    if program == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        printed = subprocess.run(
            [*launcher, *arguments], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        if below and printed != below:
            raise SystemExit(f"{command} printed\n{printed}")
        return
    if program != "parframe":
        raise SystemExit(f"not a command of this project: {command}")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(group, arguments)
    if code or (below and out.getvalue() != below):
        raise SystemExit(f"{command} ended with {code} and printed\n{out.getvalue()}")


def _write(path: Path, text: str) -> None:
    """Write a file; install the metadata of a package from its ``pyproject.toml``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if path.name != "pyproject.toml":
        return
    project = tomllib.loads(text)["project"]
    name, version = project["name"], project["version"]
    info = Path(f"{name.replace('-', '_')}-{version}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = (f"{key} = {value}" for key, value in project["entry-points"]["parframe"].items())
    (info / "entry_points.txt").write_text("\n".join(["[parframe]", *lines, ""]))


def main(page: str) -> None:
    """Run every block of a page."""
    sys.path.insert(0, str(Path.cwd()))
    names: dict[str, Any] = {"__name__": "block"}
    for language, text in blocks(Path(page).read_text(encoding="utf-8")):
        execute(language, text, names)


if __name__ == "__main__":
    main(sys.argv[1])

"""Generated parts of the documentation, which `python docs/tables.py` writes.

The text between `<!-- begin NAME -->` and `<!-- end NAME -->` is the result of `TABLES[NAME]`.
"""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

import click

import parframe
from parframe import hooks
from parframe.checking import KINDS as FINDINGS
from parframe.cli import COMMANDS, group
from parframe.cli.failures import CLOSED, INTERRUPTED, run
from parframe.errors import KINDS
from parframe.models import shipped_models
from parframe.spec import KEYS, Spec

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

from api import api  # noqa: E402  # a module of this folder

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_PART = re.compile(r"<!-- begin ([\w-]+) -->\n.*?<!-- end \1 -->", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                     for line in lines)  # fmt: skip


def strategies() -> str:
    """Return the installed strategies, with their communication in a model of the specs."""
    examples = {"CP": "CP2", "DP": "DP2", "EP": "EP2", "TP": "TP2", "PP": "PP2", "SP": "TP2SP"}
    graphs = {
        name: parframe.load(dict(Spec.read(ROOT / "specs" / f"{name}.toml").model.config))
        for name in ("quickstart", "experts")
    }
    rows = []
    for code, found in sorted(hooks.strategies(hooks.claimed_codes()).items()):
        graph = graphs["experts" if "experts" in found.splits else "quickstart"]
        report = parframe.check(parframe.partition(graph, examples[code]))
        kinds = sorted({traffic.kind for traffic in report.traffic})
        splits = ", ".join(f"`{name}`" for name in found.splits)
        said = (found.__doc__ or "").splitlines()[0].rstrip(".")
        rows.append(
            [f"`{code}`", f"`{found.axis}`", splits, said, ", ".join(kinds) or "none",
             f"`{examples[code]}`"]
        )  # fmt: skip
    return table(("code", "mesh axis", "splits", "description", "communication", "example"), rows)


def spec_keys() -> str:
    """Return the keys of a spec."""
    rows = ([f"`{path}`", key.meaning, key.expected] for path, key in KEYS.items())
    return table(("key", "meaning", "value"), rows)


def exit_codes() -> str:
    """Return the exit codes."""
    rows = [["0", "", "success"]]
    rows += [[str(code), f"`{kind}`", meaning] for kind, (code, meaning) in KINDS.items()]
    rows += [[str(INTERRUPTED), "", "the user stopped the command"]]
    rows += [[str(CLOSED), "", "the output was closed before its end"]]
    return table(("exit code", "kind", "meaning"), rows)


def findings() -> str:
    """Return the kinds of findings of a check."""
    return table(("kind", "meaning"), ([f"`{kind}`", text] for kind, text in FINDINGS.items()))


def commands() -> str:
    """Return the help of every command."""
    parts = []
    for name in COMMANDS:
        command: click.Command = import_module(f"parframe.cli.{name}").command
        above = click.Context(group, info_name="parframe", **group.context_settings)
        context = click.Context(command, above, info_name=name, terminal_width=80)
        parts.append(f"### {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts)


def quickstart() -> str:
    """Return the output of `parframe apply specs/quickstart.toml`."""
    return f"```text\n{printed(['apply', 'specs/quickstart.toml'])}```"


def readme_fit() -> str:
    """Return the output of a `parframe fit`, below its command."""
    return _shown("fit llama-3-70b --gpu H100")


def readme_choose() -> str:
    """Return the table of a `parframe choose`, below its command."""
    return _shown("choose llama-3-70b --devices 8xH100", end="\nPareto front")


def _shown(command: str, end: str = "\0") -> str:
    """Return a command and its output, up to a text."""
    output, _, rest = printed(command.split()).partition(end)
    return f"```text\n$ parframe {command}\n{output}{'...' + chr(10) if rest else ''}```"


def hook_list() -> str:
    """Return the hooks of plugins."""
    names = [name for name in vars(hooks) if name.startswith("parframe_")]
    rows = ([f"`{n}`", (getattr(hooks, n).__doc__ or "").splitlines()[0]] for n in names)
    return table(("hook", "what it does"), rows)


def printed(arguments: list[str]) -> str:
    """Return what a command prints in a copy of the repository's specs."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            ROOT / "specs", Path(folder) / "specs", ignore=shutil.ignore_patterns("out")
        )
        here = Path.cwd()
        os.chdir(folder)
        out = io.StringIO()
        try:
            os.environ["COLUMNS"] = "80"
            with contextlib.redirect_stdout(out):
                code = run(group, arguments)
        finally:
            os.chdir(here)
    if code:
        raise SystemExit(f"{arguments} ended with {code}")
    return out.getvalue()


def models() -> str:
    """Return the models that ship."""
    rows = [[one.name, f"`{one.file}`", one.weights, one.note] for one in shipped_models()]
    return table(("model", "name", "weights as published", "note"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "api": api,
    "strategies": strategies,
    "spec-keys": spec_keys,
    "exit-codes": exit_codes,
    "findings": findings,
    "commands": commands,
    "quickstart": quickstart,
    "readme-choose": readme_choose,
    "readme-fit": readme_fit,
    "hooks": hook_list,
    "models": models,
}
"""Parts that are made from the code, by name."""


def rewritten(text: str) -> str:
    """Return a page with its generated parts replaced."""
    return _PART.sub(
        lambda part: f"<!-- begin {part[1]} -->\n{TABLES[part[1]]()}\n<!-- end {part[1]} -->", text
    )


def main() -> None:
    """Write the generated parts of every page."""
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"wrote {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()

"""What a command says: JSON or tables on stdout, everything else on stderr."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import attrs
import click

from parframe.cli.failures import Reported
from parframe.errors import ParframeError

if TYPE_CHECKING:
    from rich.console import RenderableType


@attrs.frozen
class Answer:
    """What a command found.

    Parameters
    ----------
    facts
        All of it, for JSON.
    picture
        Draws it.
    error
        What is wrong with it, if anything: it is told after the rest, and gives the exit code.
    """

    facts: Mapping[str, Any]
    picture: Callable[[], Iterable[RenderableType]]
    error: ParframeError | None = None


def answers(name: str) -> Callable[[Callable[..., Answer]], click.Command]:
    """Make a command of a function that gives an answer; ``--json`` and ``--debug`` are added.

    Whatever is printed while the function runs, by a plugin or a library, goes to stderr.

    Parameters
    ----------
    name
        The command's name; the function's docstring is its help.
    """

    def made(function: Callable[..., Answer]) -> click.Command:
        @functools.wraps(function)
        def callback(*, as_json: bool, debug: bool, **options: Any) -> None:
            with redirect_stdout(sys.stderr):
                answer = function(**options)
            _say(answer, as_json)
            if answer.error is not None:
                raise Reported(answer.error)

        command = click.command(name)(callback)
        command.params += [JSON, DEBUG]
        return command

    return made


def dump(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """Facts as JSON; a number that JSON has not is written as text."""
    return json.dumps(_plain(facts), indent=indent, ensure_ascii=False, allow_nan=False)


JSON = click.Option(
    ["--json", "as_json"], is_flag=True, help="Print one JSON object instead of tables."
)
DEBUG = click.Option(["--debug"], is_flag=True, help="Show the traceback of an error as well.")


def _say(answer: Answer, as_json: bool) -> None:
    if as_json:
        click.echo(dump(answer.facts))
        return
    from parframe.report.screen import screen

    console = screen(sys.stdout)
    with console.capture() as captured:
        for part in answer.picture():
            console.print(part, crop=False)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return str(value)
    return value


@contextmanager
def steps(total: int) -> Iterator[Callable[[str], None]]:
    """Show how far long work has come, on a terminal's stderr; call the result at each step."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from parframe.cli.live import pictures

    drawn = pictures()

    class Steps(Progress):
        """The steps, and below them the ranks of what runs."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            yield from drawn()

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"), TimeElapsedColumn())
    with Steps(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=-1)

        def step(text: str) -> None:
            progress.update(task, description=text, advance=1)

        yield step

"""Output of a command: JSON or tables on stdout, everything else on stderr."""

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
    """Result of a command.

    Parameters
    ----------
    facts
        All facts, for JSON.
    picture
        Function that draws them.
    error
        Error that is printed after them and gives the exit code, if any.
    """

    facts: Mapping[str, Any]
    picture: Callable[[], Iterable[RenderableType]]
    error: ParframeError | None = None


def answers(name: str) -> Callable[[Callable[..., Answer]], click.Command]:
    """Return a decorator that makes a command of a function, with ``--json`` and ``--debug``.

    Output that plugins or libraries print while the function runs goes to stderr.

    Parameters
    ----------
    name
        Name of the command; the docstring of the function is its help.
    """

    def made(function: Callable[..., Answer]) -> click.Command:
        @functools.wraps(function)
        def callback(*, as_json: bool, debug: bool, **options: Any) -> None:
            with redirect_stdout(sys.stderr):
                answer = function(**options)
            _print(answer, as_json)
            if answer.error is not None:
                raise Reported(answer.error)

        command = click.command(name)(callback)
        command.params += [JSON, DEBUG]
        return command

    return made


def dump(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """Return facts as JSON; a number that JSON cannot express is written as text."""
    return json.dumps(_plain(facts), indent=indent, ensure_ascii=False, allow_nan=False)


JSON = click.Option(
    ["--json", "as_json"], is_flag=True, help="Print one JSON object instead of tables."
)
DEBUG = click.Option(["--debug"], is_flag=True, help="Show the traceback of an error as well.")


def _print(answer: Answer, as_json: bool) -> None:
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
    """Show the progress of long work on a terminal's stderr; call the result at each step."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from parframe.cli.live_view import rank_tables

    drawn = rank_tables()

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

"""Group of the commands, each of which is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from parframe.errors import did_you_mean


class Group(click.Group):
    """Commands by name, each the object ``command`` of a module of ``parframe.cli``.

    Parameters
    ----------
    name
        Name of the program.
    lines
        Commands with the first line of their help.
    """

    def __init__(self, name: str, lines: Mapping[str, str], **settings: Any) -> None:
        super().__init__(name, context_settings={"help_option_names": ["-h", "--help"]}, **settings)
        self.lines = lines
        self.params.append(_version())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in their order."""
        return list(self.lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.lines:
            return None
        command: click.Command = import_module(f"parframe.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called."""
        if args and args[0] not in self.lines and not args[0].startswith("-"):
            raise click.UsageError(
                f"no command {args[0][:60]!r}{did_you_mean(args[0], self.lines)}", ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.lines.items()))


def _version() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            from importlib.metadata import version

            click.echo(f"parframe {version('parframe')}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show,
        help="Show the version and exit.",
    )  # fmt: skip

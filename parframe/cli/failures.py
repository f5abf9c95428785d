"""How a command ends: its exit code, and for whatever went wrong one line on stderr."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from parframe.errors import ParframeError, did_you_mean, optional_packages

INTERRUPTED = 130
"""The exit code of a command that the user stopped."""

CLOSED = 141
"""The exit code of a command whose output nobody read to the end."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Reported(Exception):  # noqa: N818  # it carries an error, and is none itself
    """An error of which the command's output tells already.

    Parameters
    ----------
    error
        The error.
    """

    def __init__(self, error: ParframeError) -> None:
        super().__init__(error)
        self.error = error


def run(group: click.Group, arguments: Sequence[str]) -> int:
    """Run a command.

    Parameters
    ----------
    group
        The commands.
    arguments
        The command line, without the program's name.

    Returns
    -------
    int
        The exit code: 0, that of the kind of error, or one of those above.
    """
    debug = "--debug" in arguments
    try:
        with (
            group.make_context(group.name, list(arguments) or ["--help"]) as context,
            optional_packages(),
        ):
            group.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as ended:  # by --help or --version
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return CLOSED
    except BaseException as fault:  # noqa: BLE001  # whatever it is, it ends as one line
        if debug:
            _tell_all(fault)
        error = told(fault)
        if isinstance(fault, OSError) and fault.errno in _NO_ROOM:
            _forget_output()
        _tell(error, "--json" in arguments and not isinstance(fault, Reported))
        return error.exit_code


def _forget_output() -> None:
    """Let what could not be written go: it would be tried again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_all(fault: BaseException) -> None:
    """Print where it was raised: here, and in the processes of a run that failed."""
    from parframe.launcher import RunError
    from parframe.report.formatting import printable

    cause = fault.error if isinstance(fault, Reported) else fault
    traceback.print_exception(cause)
    for failure in cause.failures if isinstance(cause, RunError) else ():
        if failure.traceback:
            click.echo(printable(f"\n{failure.where}:\n{failure.traceback.rstrip()}"), err=True)


def told(fault: BaseException) -> ParframeError:
    """Whatever went wrong, as an error of parframe."""
    if isinstance(fault, Reported):
        return fault.error
    if isinstance(fault, ParframeError):
        return fault
    if isinstance(fault, click.ClickException):
        return _usage(fault)
    if isinstance(fault, OSError) and fault.errno == errno.ENAMETOOLONG:
        return ParframeError(
            "usage", str(fault.filename)[:60], "the path is too long", "give a shorter one"
        )
    if isinstance(fault, OSError) and fault.errno in _NO_ROOM:
        return ParframeError(
            "output",
            str(fault.filename or "standard output"),
            f"cannot be written ({fault.strerror})",
            "make room, or write to another disk",
        )
    if isinstance(fault, MemoryError) or "can't allocate memory" in str(fault):
        return ParframeError(
            "run", "this machine", "out of memory", "use a smaller model, batch or sequence"
        )
    first = next(iter(str(fault).splitlines()), "")
    return ParframeError(
        "internal",
        _place(fault),
        f"{type(fault).__name__}: {first}" if first else type(fault).__name__,
        "this is a fault of parframe: please report it with what --debug prints",
    )


def _usage(fault: click.ClickException) -> ParframeError:
    """A command line that click refuses."""
    context = getattr(fault, "ctx", None)
    path = context.command_path if context is not None else "parframe"
    what = fault.format_message().rstrip(".")
    if isinstance(fault, click.NoSuchOption):
        known = [name for p in context.command.params for name in p.opts] if context else []
        what = f"no option {fault.option_name!r}{did_you_mean(fault.option_name, known)}"
    what = what[:1].lower() + what[1:]
    return ParframeError("usage", path, " ".join(what.split()), f"see {path} --help")


def _place(fault: BaseException) -> str:
    """Where in the code it happened."""
    frames = traceback.extract_tb(fault.__traceback__)
    own = [frame for frame in frames if f"{os.sep}parframe" in frame.filename]
    if not own:
        return "parframe"
    return f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}"


def _tell(error: ParframeError, as_json: bool) -> None:
    from parframe.report.formatting import printable

    click.echo(printable(str(error)), err=True)
    if as_json:
        click.echo(json.dumps({"error": facts_of(error)}))


def facts_of(error: ParframeError) -> dict[str, Any]:
    """An error for JSON."""
    return {
        "kind": error.kind,
        "where": error.where,
        "what": error.what,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }

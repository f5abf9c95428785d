"""End of a command: its exit code, and one line on stderr for an error."""

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
"""Exit code of a command that the user stopped."""

CLOSED = 141
"""Exit code of a command whose output was closed before its end."""


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Reported(Exception):  # noqa: N818  # carries an error
    """Error that the output of the command already contains.

    Parameters
    ----------
    error
        Error that ends the command.
    """

    def __init__(self, error: ParframeError) -> None:
        super().__init__(error)
        self.error = error


def run(group: click.Group, arguments: Sequence[str]) -> int:
    """Run a command.

    Parameters
    ----------
    group
        Commands.
    arguments
        Command line, without the name of the program.

    Returns
    -------
    int
        Exit code: 0, that of the kind of error, `INTERRUPTED` or `CLOSED`.
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
    except BaseException as fault:  # noqa: BLE001  # every error ends as one line
        if debug:
            _print_tracebacks(fault)
        error = as_parframe_error(fault)
        if isinstance(fault, OSError) and fault.errno in _DISK_FULL:
            _forget_output()
        _print_error(error, "--json" in arguments and not isinstance(fault, Reported))
        return error.exit_code


def _forget_output() -> None:
    """Discard output that could not be written, so that the exit does not write it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_tracebacks(fault: BaseException) -> None:
    """Print the traceback of an error, and those of the ranks of a run that failed."""
    from parframe.launcher import RunError
    from parframe.report.formatting import printable

    cause = fault.error if isinstance(fault, Reported) else fault
    traceback.print_exception(cause)
    for failure in cause.failures if isinstance(cause, RunError) else ():
        if failure.traceback:
            click.echo(printable(f"\n{failure.where}:\n{failure.traceback.rstrip()}"), err=True)


def as_parframe_error(fault: BaseException) -> ParframeError:
    """Return any exception as an error of parframe."""
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
    if isinstance(fault, OSError) and fault.errno in _DISK_FULL:
        return ParframeError(
            "output",
            str(fault.filename or "standard output"),
            f"cannot be written ({fault.strerror})",
            "free disk space, or write to another disk",
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
        "report this bug in parframe with the output of --debug",
    )


def _usage(fault: click.ClickException) -> ParframeError:
    """Return the error of a command line that click refuses."""
    context = getattr(fault, "ctx", None)
    path = context.command_path if context is not None else "parframe"
    what = fault.format_message().rstrip(".")
    if isinstance(fault, click.NoSuchOption):
        known = [name for p in context.command.params for name in p.opts] if context else []
        what = f"no option {fault.option_name!r}{did_you_mean(fault.option_name, known)}"
    what = what[:1].lower() + what[1:]
    return ParframeError("usage", path, " ".join(what.split()), f"see {path} --help")


def _place(fault: BaseException) -> str:
    """Return the file and line of parframe that raised an error."""
    frames = traceback.extract_tb(fault.__traceback__)
    own = [frame for frame in frames if f"{os.sep}parframe" in frame.filename]
    if not own:
        return "parframe"
    return f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}"


def _print_error(error: ParframeError, as_json: bool) -> None:
    from parframe.report.formatting import printable

    click.echo(printable(str(error)), err=True)
    if as_json:
        click.echo(json.dumps({"error": facts_of(error)}))


def facts_of(error: ParframeError) -> dict[str, Any]:
    """Return the fields of an error for JSON."""
    return {
        "kind": error.kind,
        "where": error.where,
        "what": error.what,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }

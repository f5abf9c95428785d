"""Entry point of the fork server process."""

from __future__ import annotations

import runpy
import signal
import sys

from parframe.launcher import temporary_folder
from parframe.launcher.fork_server import kill_all_and_exit
from parframe.launcher.processes import exit_with_parent
from parframe.launcher.worker import EXIT_FAILED


def main() -> None:
    """Tie this process to the launcher, then run the module named on the command line."""
    _, module, connection, launcher = sys.argv
    signal.signal(signal.SIGTERM, lambda *_: kill_all_and_exit(EXIT_FAILED))
    exit_with_parent(int(launcher), signal.SIGTERM)  # before imports, which take seconds
    temporary_folder.create()
    sys.argv[1:] = [connection]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


main()

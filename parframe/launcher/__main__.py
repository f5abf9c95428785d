"""Begin as the starting process: bound to the launcher's life first, then the module it named."""

from __future__ import annotations

import runpy
import signal
import sys

from parframe.launcher import temporary_folder
from parframe.launcher.fork_server import end_all
from parframe.launcher.processes import die_with
from parframe.launcher.worker import FAILED


def begin() -> None:
    """Run the module named on the command line; it calls `parframe.launcher.fork_server.main`."""
    _, module, connection, launcher = sys.argv
    signal.signal(signal.SIGTERM, lambda *_: end_all(FAILED))
    die_with(int(launcher), signal.SIGTERM)  # before what is imported, which takes seconds
    temporary_folder.make()
    sys.argv[1:] = [connection]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


begin()

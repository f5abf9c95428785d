"""Begin as the starting process: bound to the launcher's life first, then the module it named."""

from __future__ import annotations

import runpy
import signal
import sys

from parframe.launching import scratch
from parframe.launching.nursery import end_all
from parframe.launching.processes import die_with
from parframe.launching.worker import FAILED


def begin() -> None:
    """Run the module named on the command line, which calls `parframe.launching.nursery.main`."""
    _, module, connection, launcher = sys.argv
    signal.signal(signal.SIGTERM, lambda *_: end_all(FAILED))
    die_with(int(launcher), signal.SIGTERM)  # before what is imported, which takes seconds
    scratch.make()
    sys.argv[1:] = [connection]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


begin()

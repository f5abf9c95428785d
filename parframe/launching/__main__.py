"""Begin as the starting process: bound to the launcher's life first, then the module it named."""

from __future__ import annotations

import runpy
import sys

from parframe.launching.processes import die_with


def begin() -> None:
    """Run the module named on the command line, which calls `parframe.launching.nursery.main`."""
    _, module, connection, launcher = sys.argv
    die_with(int(launcher))  # before whatever the module imports, which takes seconds
    sys.argv[1:] = [connection]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


begin()

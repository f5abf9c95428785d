"""Task of a local run of a plan, with workers that cause faults."""

from __future__ import annotations

from faulty import faulty

from parframe.executors.local_worker import generate, prepare
from parframe.launcher import fork_server

if __name__ == "__main__":
    fork_server.main({"generate": faulty(generate)}, prepare)

"""The task of a local run of a plan, with workers that make faults."""

from __future__ import annotations

from faulty import faulty

from parframe.executing.nursery import generate, prepare
from parframe.launching import nursery

if __name__ == "__main__":
    nursery.main({"generate": faulty(generate)}, prepare)

"""A plan of parframe whose ranks share no memory: every message goes over gloo."""

from __future__ import annotations

import parframe.runtime.shared_memory_collectives as direct
from benchmarks.contender import Job, serve
from benchmarks.partitioned import Partitioned


class OverGloo(Partitioned):
    """What ranks do that have no processors of their own, or lie on several machines."""

    def __init__(self, job: Job) -> None:
        direct.create_segment = lambda *_: None
        super().__init__(job)


if __name__ == "__main__":
    serve(OverGloo)

"""Measure the time of a choice, and of the work of its composites.

A choice over all products of pipeline, expert, data and tensor parallelism loads the model,
computes the work of each composite and estimates it. The work is then computed once more with an
empty cache.
"""

from __future__ import annotations

import time

import attrs

from parframe import models
from parframe.errors import ParframeError
from parframe.mesh.composite_enumeration import enumerate_composites
from parframe.price.choose.public_api import DEFAULT_STRATEGIES, choose
from parframe.price.work.compressed.strategy_work import composite_work_reader

CASES = (("mixtral-8x7b", 64, 2.0), ("deepseek-v3", 1024, 15.0))
"""Model, number of devices, and target of the choice in seconds."""


class Stopwatch:
    """Wall time and CPU time since creation."""

    def __init__(self) -> None:
        self.begun, self.used = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall, own = time.perf_counter() - self.begun, time.process_time() - self.used
        return f"{wall:.1f} s ({own:.1f} s CPU)"


def main() -> None:
    for name, count, bar in CASES:
        watch = Stopwatch()
        found = choose(name, f"{count}xH100")
        print(
            f"{name} on {count} devices: chosen in {watch}, target {bar:.0f} s\n"
            f"  {len(found.ranked)} composites ranked, {len(found.excluded)} excluded"
        )
        graph = attrs.evolve(models.find_model(name).graph())
        watch = Stopwatch()
        read = refused = 0
        work = composite_work_reader(graph, DEFAULT_STRATEGIES)
        for composite in enumerate_composites(count, DEFAULT_STRATEGIES):
            try:
                work(composite)
                read += 1
            except ParframeError:
                refused += 1
        print(f"  work of composites: {read} computed, {refused} refused, in {watch}")


if __name__ == "__main__":
    main()

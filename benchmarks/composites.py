"""How long choosing takes, and of it the work of composites: python -m benchmarks.composites.

All products of pipeline, expert, data and tensor parallelism are tried, those that the model cannot
be split by included. Choosing loads the model, reads the work of each, and prices it; the work is
then read once more, by a reader that knows nothing yet.
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
"""A model, a number of devices, and the seconds that choosing should take at most."""


class Stopwatch:
    """Seconds since it was made, also those of the processor."""

    def __init__(self) -> None:
        self.begun, self.used = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall, own = time.perf_counter() - self.begun, time.process_time() - self.used
        return f"{wall:.1f} s ({own:.1f} s of the processor)"


def main() -> None:
    for name, count, bar in CASES:
        watch = Stopwatch()
        found = choose(name, f"{count}xH100")
        print(
            f"{name} on {count} devices: chosen in {watch}; at most {bar:.0f} s wanted\n"
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
        print(f"  the work of composites: {read} read, {refused} refused, in {watch}")


if __name__ == "__main__":
    main()

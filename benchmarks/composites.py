"""How long the work of every composite takes: python -m benchmarks.composites.

All products of data, expert, pipeline and tensor parallelism of powers of two are tried, those
that the model cannot be split by included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from parframe import models
from parframe.errors import ParframeError
from parframe.price.condensed import work_of_composite

CASES = (("mixtral-8x7b", 64, 2.0), ("deepseek-v3", 1024, 15.0))
"""A model, a number of devices, and the seconds that it should take at most."""


def composites(count: int) -> Iterator[str]:
    """Every product of four degrees that are powers of two."""
    most = count.bit_length() - 1
    for data in range(most + 1):
        for expert in range(most + 1 - data):
            for stages in range(most + 1 - data - expert):
                degrees = (data, expert, stages, most - data - expert - stages)
                pairs = zip(("DP", "EP", "PP", "TP"), degrees, strict=True)
                yield "".join(f"{code}{2**power}" for code, power in pairs if power)


def main() -> None:
    for name, count, bar in CASES:
        graph = models.find(name).graph()
        begun, used = time.perf_counter(), time.process_time()
        read = refused = 0
        for composite in composites(count):
            try:
                work_of_composite(graph, composite)
                read += 1
            except ParframeError:
                refused += 1
        print(
            f"{name} on {count} devices: {read} composites read, {refused} refused, in "
            f"{time.perf_counter() - begun:.1f} s ({time.process_time() - used:.1f} s of the "
            f"processor); at most {bar:.0f} s wanted"
        )


if __name__ == "__main__":
    main()

"""Print how much longer a first token takes with many equal layers than with few, all compiled.

Counted from a process that has imported everything: loading the model, partitioning it, reading
weights, compiling with an empty cache, and the first tokens. The start of the process is not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from benchmarks.contest import Contender, running
from benchmarks.decode import saved

FEW, MANY = 2, 12


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    few, many = (first_token(layers, options.processes) for layers in (FEW, MANY))
    print(f"processes: {options.processes}; seconds to the first tokens, compiling included")
    print(f"{FEW} equal layers: {few:.1f}, {MANY}: {many:.1f}, ratio {many / few:.2f}")


def first_token(layers: int, processes: int) -> float:
    """Seconds to the first tokens of a model with so many layers, nothing compiled before."""
    contender = Contender("parframe", "benchmarks.partitioned", processes, threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        saved(folder / "model", layers)
        cold = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
        with patch.dict(os.environ, cold), running(contender, folder) as started:
            return max(float(answer["prepared"]) for answer in started.answers())


if __name__ == "__main__":
    main()

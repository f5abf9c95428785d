"""Compare the time to the first tokens with many and with few equal layers, compiled.

The time starts after all imports. It includes loading and partitioning the model, reading weights,
compilation with an empty cache, and the first tokens.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from benchmarks.alternating_runs import System, start_system
from benchmarks.decode import save_model

FEW, MANY = 2, 12


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    few, many = (first_token(layers, options.processes) for layers in (FEW, MANY))
    print(f"processes: {options.processes}; seconds to the first tokens, compiling included")
    print(f"{FEW} equal layers: {few:.1f}, {MANY}: {many:.1f}, ratio {many / few:.2f}")


def first_token(layers: int, processes: int) -> float:
    """Return the seconds to the first tokens of a model with so many layers, from a cold cache."""
    system = System("parframe", "benchmarks.parframe_decoder", processes, threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_model(folder / "model", layers)
        cold = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
        with patch.dict(os.environ, cold), start_system(system, folder) as started:
            return max(float(answer["prepared"]) for answer in started.answers())


if __name__ == "__main__":
    main()

"""Fit all constants of pricing: `python -m benchmarks.calibration.fit [FOLDER] [OPTION ...]`.

Kernels and collectives are fitted to rows of their own; engines are fitted last, to rows of whole
engines, with the fitted kernels and collectives. Engines are fitted to the rows that
``fitted_rows.toml`` records; with ``--all-rows`` all rows of the folder are recorded first. With
``--check`` nothing is written; the exit code is 1 where a file would change.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from difflib import unified_diff
from pathlib import Path

import parframe.price
from benchmarks.calibration import fitted_rows
from benchmarks.calibration.collective_rows import TABLES as COLLECTIVES
from benchmarks.calibration.engine_rows import TABLES as ENGINES
from benchmarks.calibration.engine_rows import TRACES, read_folder
from benchmarks.calibration.kernel_rows import TABLES as KERNELS
from benchmarks.calibration.report import FOLDER

DATA = Path(parframe.price.__file__).parent / "data"


def kernels(folder: Path) -> str:
    """Fit the efficiencies of kernels (some seconds)."""
    from benchmarks.calibration.kernel_fit import rebuild

    return rebuild(folder)


def collectives(folder: Path) -> str:
    """Fit latencies, steps and shares of links (15 seconds)."""
    from benchmarks.calibration.collective_fit import rebuild

    return rebuild(folder)


def engines(folder: Path) -> str:
    """Fit constants of engines and their errors out of sample (three minutes)."""
    from benchmarks.calibration.engine_file import rebuild
    from parframe.price.cost import communication_times as links
    from parframe.price.cost import efficiency

    efficiency.shipped.cache_clear()  # the files that were just written
    links.shipped.cache_clear()
    return rebuild(folder, print_progress)


ORDER: tuple[tuple[str, Callable[[Path], str]], ...] = (
    ("kernels.json", kernels),
    ("collectives.json", collectives),
    ("engines.toml", engines),
)
"""Files that are fitted, each after those that it depends on."""


def tables() -> list[str]:
    """Return the names of all tables that constants are fitted to."""
    return list(dict.fromkeys((*KERNELS, *COLLECTIVES, *ENGINES, TRACES)))


def print_progress(text: str) -> None:
    """Print a line of progress on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    check = "--check" in arguments
    names = [one for one in arguments if not one.startswith("--")]
    folder = Path(names[0]) if names else FOLDER
    lacking = [name for name in tables() if not (folder / name).is_file()]
    if lacking:
        print(f"skipped: {folder} has no {', '.join(lacking)}")
        return 0
    if "--all-rows" in arguments and not check:
        fitted_rows.PATH.write_text(fitted_rows.record(read_folder(folder)), encoding="utf-8")
    changed = 0
    for name, made in ORDER:
        print_progress(f"fitting {name}")
        start = time.perf_counter()
        text = made(folder)
        lines = _changed(DATA / name, text)
        changed += lines > 0
        if lines and not check:
            (DATA / name).write_text(text, encoding="utf-8")
        what = f"{lines} line{'s' * (lines > 1)} changed" if lines else "unchanged"
        print(f"{name}: {what}, in {time.perf_counter() - start:.0f} s", flush=True)
    return int(check and changed > 0)


def _changed(path: Path, text: str) -> int:
    """Return the number of lines of a file that a text changes."""
    old = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = unified_diff(old, text.splitlines(keepends=True), n=0)
    return sum(line[0] == "+" and line[:3] != "+++" for line in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

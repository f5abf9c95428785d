"""Fit engines anew: `python -m benchmarks.engines [FOLDER]` writes their constants."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import parframe.price
from benchmarks.validation import FOLDER
from parframe.price.basis import Basis
from parframe.price.fitting.served import read_folder
from parframe.price.fitting.shipped import rebuilt, text
from parframe.price.planned import model


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else FOLDER
    found = rebuilt(read_folder(folder), Basis(model))
    path = Path(parframe.price.__file__).parent / "data" / "engines.toml"
    path.write_text(text(found), encoding="utf-8")
    print(f"{len(found)} engines in {path}")


if __name__ == "__main__":
    main(sys.argv[1:])

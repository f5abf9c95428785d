"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from parframe.spec.keys import DTYPES
from parframe.spec.value_readers import size_in_bytes


class Amount(click.ParamType[int]):
    """An amount of memory, such as ``80GB``."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the amount."""
        if isinstance(value, int):
            return value
        try:
            return size_in_bytes(int(value) if value.isdecimal() else value, Path())
        except ValueError as fault:
            self.fail(f"{fault}; give such as '80GB' or '80GiB'", param, ctx)


_COUNT = click.IntRange(1)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def memory_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What memory is told for: ``budget``, ``dtype``, ``batch``, ``sequence``."""
    for option in (
        click.option(
            "--sequence", type=_COUNT, help="Length of sequence for which memory is told."
        ),
        click.option("--batch", type=_COUNT, help="Batch for which memory is told."),
        click.option("--dtype", type=click.Choice(DTYPES), help="Type of weights and cache."),
        click.option("--budget", type=Amount(), help="What a device may need at most, as 80GB."),
    ):
        function = option(function)
    return function


def trial_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the proof runs: ``batch``, ``sequence``, ``seed``, ``dtype``."""
    for option in (
        click.option(
            "--dtype", type=click.Choice(("float64", "float32")), default="float64",
            show_default=True, help="What to compute in.",
        ),
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True,
            help="Seed of random weights and inputs.",
        ),
        click.option("--sequence", type=_COUNT, help="Length of sequence of the inputs."),
        click.option("--batch", type=_COUNT, help="Batch of the inputs."),
    ):  # fmt: skip
        function = option(function)
    return function


weights_option: Decorator = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Folder with the model's .safetensors; random weights without it.",
)

plugins_option: Decorator = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="DISTRIBUTION",
    help="An installed distribution whose rules of operators are needed; may be repeated.",
)

model_argument: Decorator = click.argument("model", type=click.Path(path_type=Path))

plan_argument: Decorator = click.argument("plan", type=click.Path(path_type=Path))

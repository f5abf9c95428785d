"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from parframe.spec.keys import DTYPES
from parframe.spec.value_readers import size_in_bytes


class Amount(click.ParamType[int]):
    """Amount of memory, such as ``80GB``."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes of an amount."""
        if isinstance(value, int):
            return value
        try:
            return size_in_bytes(int(value) if value.isdecimal() else value, Path())
        except ValueError as fault:
            self.fail(f"{fault}; give an amount such as '80GB' or '80GiB'", param, ctx)


_COUNT = click.IntRange(1)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def memory_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the memory count: ``budget``, ``dtype``, ``batch``, ``sequence``."""
    for option in (
        click.option("--sequence", type=_COUNT, help="Sequence length that memory is counted for."),
        click.option("--batch", type=_COUNT, help="Batch size that memory is counted for."),
        click.option("--dtype", type=click.Choice(DTYPES), help="Dtype of weights and KV cache."),
        click.option("--budget", type=Amount(), help="Memory budget of a device, such as 80GB."),
    ):
        function = option(function)
    return function


def trial_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the verification: ``batch``, ``sequence``, ``seed``, ``dtype``."""
    for option in (
        click.option(
            "--dtype", type=click.Choice(("float64", "float32")), default="float64",
            show_default=True, help="Dtype to compute in.",
        ),
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True,
            help="Seed of random weights and inputs.",
        ),
        click.option("--sequence", type=_COUNT, help="Sequence length of the inputs."),
        click.option("--batch", type=_COUNT, help="Batch size of the inputs."),
    ):  # fmt: skip
        function = option(function)
    return function


weights_option: Decorator = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Folder with the model's .safetensors (default: random weights).",
)

plugins_option: Decorator = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="DISTRIBUTION",
    help="Installed distribution whose operator rules are needed; may be repeated.",
)

model_argument: Decorator = click.argument("model", type=click.Path(path_type=Path))

plan_argument: Decorator = click.argument("plan", type=click.Path(path_type=Path))

"""Options of the commands that run a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from parframe.cli.options import Decorator
from parframe.spec.keys import DTYPES

parallel_option: Decorator = click.option(
    "--parallel", help="Composite, such as TP2 (default: one device)."
)


def weights_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of reading weights: ``pickled`` and ``extra``."""
    for option in (
        click.option(
            "--extra", is_flag=True,
            help="Ignore weights that the model does not use (default: error).",
        ),
        click.option("--pickled", is_flag=True, help="Also read weights from .bin and .pt files."),
    ):  # fmt: skip
        function = option(function)
    return function


def run_options(compiled: bool) -> Decorator:
    """Return a decorator that adds the options of a run."""
    options: tuple[Decorator, ...] = (
        click.option(
            "--weights", metavar="PATH", help='Weights folder (default: the model\'s), or "random".'
        ),
        weights_options,
        click.option(
            "--dtype", type=click.Choice(DTYPES), help="Dtype to compute in (default: the model's)."
        ),
        click.option(
            "--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True,
            help="Kind of devices.",
        ),
        click.option(
            "--executor", default="local", show_default=True, metavar="NAME",
            help="Executor: local, torchrun, simulate, or one of a plugin.",
        ),
        click.option(
            "--compile/--no-compile", "compiled", default=compiled, show_default=True,
            help="Compile decode steps.",
        ),
        click.option(
            "--cache/--no-cache", "cached", default=True, show_default=True,
            help="Use a KV cache. Without it, every step computes the whole text again.",
        ),
        click.option(
            "--share-gpus", is_flag=True,
            help="Let several ranks share a GPU, to try a plan (slow).",
        ),
        click.option(
            "--bind/--no-bind", "bind_cpus", default=True, show_default=True,
            help="Bind each process to CPUs of its own.",
        ),
    )  # fmt: skip

    def add_options(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add_options

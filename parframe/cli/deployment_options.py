"""What commands that price share: a model by name or path, devices, dtypes, an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from parframe.graph import OperatorGraph
    from parframe.price.choose.candidates import Setting
    from parframe.spec import DemoModel

_WEIGHTS = ("bf16", "fp16", "fp8", "int8", "int4", "fp4", "fp32")
_CACHE = ("bf16", "fp16", "fp8", "fp32")


@attrs.frozen
class Named:
    """A model as a command names it.

    Parameters
    ----------
    key
        Its name in file names.
    graph
        Its operator graph.
    weights
        The dtype of its weights.
    path
        Where it lies; None for one that ships.
    config
        The configuration of one that ships.
    """

    key: str
    graph: OperatorGraph
    weights: str
    path: Path | None = None
    config: Mapping[str, Any] | None = None


def deploying_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where it runs: ``devices``, ``hardware``, ``engine``, ``weights_dtype``, ``cache_dtype``."""
    for option in (
        click.option(
            "--cache-dtype", type=click.Choice(_CACHE),
            help="Of keys and values; fp32 with weights of fp32, else bf16.",
        ),
        click.option(
            "--dtype", "weights_dtype", type=click.Choice(_WEIGHTS),
            help="Of weights, if not the model's own.",
        ),
        click.option(
            "--engine", default="", metavar="NAME",
            help="What serves, such as vLLM or TensorRT-LLM; the middle of all without it.",
        ),
        click.option(
            "--hardware", multiple=True, type=click.Path(path_type=Path),
            help="A file of TOML with devices and machines of your own; may be repeated.",
        ),
        click.option("--devices", required=True, metavar="NxGPU", help="Such as 64xH100."),
    ):  # fmt: skip
        function = option(function)
    return function


def setting_of(
    named: Named,
    devices: str,
    hardware: tuple[Path, ...],
    engine: str,
    weights_dtype: str | None,
    cache_dtype: str | None,
) -> Setting:
    """Find devices, dtypes and engine; doubts about a file of hardware are told on stderr.

    A model in float32 is priced so where the device is known to compute so, and else in bfloat16,
    as it would be served.
    """
    from parframe.price.choose.public_api import setting_of as found_setting
    from parframe.price.serving.hardware_lookup import cluster, known

    if hardware:
        for doubt in known(devices, hardware).warnings:
            click.echo(f"warning: {doubt}", err=True)
    weights = weights_dtype or named.weights
    if weights_dtype is None and weights == "fp32":
        rates = cluster(devices, hardware).machine.device.rates
        weights = weights if weights in rates else "bf16"
    cache = cache_dtype or ("fp32" if weights == "fp32" else "bf16")
    setting = found_setting(devices, weights, cache, engine, hardware, named.graph.source)
    if engine and not setting.engine.known:
        click.echo(
            f"warning: nothing was measured of the engine {engine[:60]!r}: "
            "the middle of those known",
            err=True,
        )
    return setting


def model_named(source: str | Path | DemoModel) -> Named:
    """Find a model that ships, or load one from a path.

    Raises
    ------
    ParframeError
        Of kind ``load``, if it is neither.
    """
    from parframe import models

    if not isinstance(source, str | Path) or Path(source).exists():
        return _loaded(Path(source) if isinstance(source, str) else source)
    found = models.find(str(source))
    return Named(found.file, found.graph(), found.weights, config=found.config)


def _loaded(source: Path | DemoModel) -> Named:
    from parframe.cli.source import load_model

    graph = load_model(source)
    floats = [p.dtype for p in graph.parameters.values() if "float" in p.dtype and not p.data]
    dtypes = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    weights = dtypes.get(floats[0] if floats else "", "bf16")
    if isinstance(source, Path):
        return Named(source.stem, graph, weights, path=source)
    return Named("model", graph, weights, config=source.config)

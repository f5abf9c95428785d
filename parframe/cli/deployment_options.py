"""Options of the commands that estimate a deployment: model, devices, dtypes and engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from parframe.graph import OperatorGraph
    from parframe.price.choose.setup import ServingSetup
    from parframe.spec import DemoModel

_WEIGHT_DTYPES = ("bf16", "fp16", "fp8", "int8", "int4", "fp4", "fp32")
_CACHE_DTYPES = ("bf16", "fp16", "fp8", "fp32")

hardware_option = click.option(
    "--hardware", multiple=True, type=click.Path(path_type=Path), metavar="TOML",
    help="File with devices and machines of your own. Repeatable.",
)  # fmt: skip
"""Option ``--hardware``."""


@attrs.frozen
class ModelSource:
    """Model that a command is given, with its key in file names and dtype of weights.

    It has a path, or the configuration of a shipped or a demo model.
    """

    key: str
    graph: OperatorGraph
    weights: str
    path: Path | None = None
    config: Mapping[str, Any] | None = None


def _combine(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds the options in this order."""
    return lambda function: reduce(lambda to, option: option(to), reversed(options), function)


deployment_options = _combine(
    click.option(
        "--devices", required=True, metavar="NxGPU",
        help="Number and name of the devices, such as 64xH100.",
    ),
    hardware_option,
    click.option(
        "--engine", default="", metavar="NAME",
        help="Serving engine, such as vLLM or TensorRT-LLM (default: the median of the "
        "measured engines).",
    ),
    click.option(
        "--dtype", "weight_dtype", type=click.Choice(_WEIGHT_DTYPES),
        help="Dtype of the weights (default: the model's).",
    ),
    click.option(
        "--cache-dtype", type=click.Choice(_CACHE_DTYPES),
        help="Dtype of the KV cache (default: bf16; fp32 with fp32 weights).",
    ),
)  # fmt: skip
"""Options of devices, engine and dtypes."""

length_options = _combine(
    click.option(
        "--prompt-tokens", type=click.FloatRange(1),
        help="Tokens of a prompt (default: the use case's).",
    ),
    click.option(
        "--output-tokens", type=click.FloatRange(1),
        help="Tokens of an output (default: the use case's).",
    ),
)  # fmt: skip
"""Options of lengths."""


def find_setup(
    model: ModelSource,
    devices: str,
    hardware: tuple[Path, ...],
    engine: str,
    weight_dtype: str | None,
    cache_dtype: str | None,
) -> ServingSetup:
    """Find devices, dtypes and engine; warnings about hardware files go to stderr.

    The weights of a float32 model are taken as float32 where the device has a float32 rate, and
    else as bfloat16, as it would be served.
    """
    from parframe.price.choose import setup
    from parframe.price.serving.hardware_lookup import find_cluster, load_catalog

    if hardware:
        for warning in load_catalog(devices, hardware).warnings:
            click.echo(f"warning: {warning}", err=True)
    weights = weight_dtype or model.weights
    if weight_dtype is None and weights == "fp32":
        rates = find_cluster(devices, hardware).machine.device.rates
        weights = weights if weights in rates else "bf16"
    cache = cache_dtype or ("fp32" if weights == "fp32" else "bf16")
    found = setup.find_setup(devices, weights, cache, engine, hardware, model.graph.source)
    if engine and not found.engine.measured:
        click.echo(
            f"warning: engine {engine[:60]!r} was not measured; using the median engine", err=True
        )
    return found


def find_model_source(source: str | Path | DemoModel) -> ModelSource:
    """Find a shipped model by its name, or load a model from a path.

    Raises
    ------
    ParframeError
        Of kind ``load``, if the source is neither.
    """
    from parframe.models import find_model

    if not isinstance(source, str | Path) or Path(source).exists():
        return _load(Path(source) if isinstance(source, str) else source)
    model = find_model(str(source))
    return ModelSource(model.file, model.graph(), model.weights, config=model.config)


def _load(source: Path | DemoModel) -> ModelSource:
    from parframe.cli.source import load_model

    graph = load_model(source)
    floats = [p.dtype for p in graph.parameters.values() if "float" in p.dtype and not p.data]
    dtypes = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    weights = dtypes.get(floats[0] if floats else "", "bf16")
    if isinstance(source, Path):
        return ModelSource(source.stem, graph, weights, path=source)
    return ModelSource("model", graph, weights, config=source.config)

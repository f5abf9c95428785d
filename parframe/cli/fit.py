"""`parframe fit`: the minimum number of GPUs that a model fits on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parframe.cli.answer import Answer, answers, steps
from parframe.cli.deployment_options import hardware_option

if TYPE_CHECKING:
    from parframe.graph import OperatorGraph


@answers("fit")
@click.argument("models", nargs=-1)
@click.option("--gpu", multiple=True, help="Name of a GPU (default: all). Repeatable.")
@click.option("--sequence-length", default=4096, show_default=True, type=click.IntRange(1),
              help="Tokens that the KV cache is allocated for per sequence.")  # fmt: skip
@click.option("--dtypes", default="bf16,fp8,int4", show_default=True,
              help="Dtypes of the weights, separated by commas.")  # fmt: skip
@click.option("--cache-dtype", default="bf16", show_default=True,
              help="Dtype of the KV cache.")  # fmt: skip
@click.option("--engine", default="vllm", show_default=True,
              help="Serving engine: vllm or trtllm.")  # fmt: skip
@click.option("--max-devices", default=64, show_default=True, type=click.IntRange(1, 4096),
              help="Maximum number of GPUs.")  # fmt: skip
@hardware_option
def command(
    models: tuple[str, ...],
    gpu: tuple[str, ...],
    sequence_length: int,
    dtypes: str,
    cache_dtype: str,
    engine: str,
    max_devices: int,
    hardware: tuple[Path, ...],
) -> Answer:
    """Show the minimum number of GPUs that a model fits on.

    Each cell also has the number of sequences that fit there at once, and the composite.

    MODELS are names such as llama-3.1-70b, or models that `parframe load` accepts (default: all
    shipped models, which do not need torch).
    """
    from parframe.models import shipped_models
    from parframe.price.choose.minimum_devices import CandidateLayouts, find_minimum_devices
    from parframe.price.serving.capacity import memory_policy
    from parframe.price.serving.device_memory import DeviceMemory
    from parframe.price.serving.hardware_lookup import load_catalog
    from parframe.report.fit import draw_fits, fit_facts, model_facts

    catalog = load_catalog("", hardware)
    devices = [catalog.device(name) for name in gpu] or list(catalog.devices.values())
    weight_dtypes = [dtype.strip() for dtype in dtypes.split(",") if dtype.strip()]
    for dtype in weight_dtypes:
        DeviceMemory.with_dtypes(0, dtype, cache_dtype)  # raises an error for an unknown dtype
    policy = memory_policy(engine)
    names = models or tuple(model.name for model in shipped_models())
    fits = []
    with steps(len(names)) as step:
        for name in names:
            step(name)
            label, graph = _load_graph(name)
            layouts = CandidateLayouts(graph, max_devices)
            for device in devices:
                for dtype in weight_dtypes:
                    fit = find_minimum_devices(
                        layouts, device, sequence_length, dtype, cache_dtype, policy
                    )
                    fits.append(model_facts(label, device.name, dtype, fit))
    facts = fit_facts(fits, sequence_length, engine, cache_dtype, max_devices)
    return Answer(facts, partial(draw_fits, facts))


def _load_graph(name: str) -> tuple[str, OperatorGraph]:
    """Return the name and the graph of a shipped model, or of a model at a path."""
    from parframe.models import find_model

    if Path(name).exists():
        import parframe

        return Path(name).name, parframe.load(name)
    model = find_model(name)
    return model.name, model.graph()

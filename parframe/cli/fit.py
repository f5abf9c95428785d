"""`parframe fit`: which model fits on how many of which GPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parframe.cli.answer import Answer, answers, steps

if TYPE_CHECKING:
    from parframe.graph import OperatorGraph


@answers("fit")
@click.argument("models", nargs=-1)
@click.option("--gpu", multiple=True, help="A GPU by its name; may be repeated. All if none.")
@click.option("--length", default=4096, show_default=True, type=click.IntRange(1),
              help="Positions that are allocated for a sequence.")  # fmt: skip
@click.option("--weights", default="bf16,fp8,int4", show_default=True,
              help="Dtypes of the weights, with commas between.")  # fmt: skip
@click.option("--cache", default="bf16", show_default=True, help="The dtype of the cache.")
@click.option("--engine", default="vllm", show_default=True,
              help="The serving engine: vllm or trtllm.")  # fmt: skip
@click.option("--most", default=64, show_default=True, type=click.IntRange(1, 4096),
              help="The most devices to try.")  # fmt: skip
@click.option(
    "--hardware",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file of TOML with devices of your own; may be repeated.",
)
def command(
    models: tuple[str, ...],
    gpu: tuple[str, ...],
    length: int,
    weights: str,
    cache: str,
    engine: str,
    most: int,
    hardware: tuple[Path, ...],
) -> Answer:
    """Tell on how many GPUs a model fits, with how many sequences.

    MODELS are names such as llama-3.1-70b, or models that `parframe load` takes; all that ship
    if none is given. No torch is needed for those that ship.
    """
    from parframe.models import shipped
    from parframe.price.choose.minimum_devices import Layouts, fewest
    from parframe.price.serving import capacity
    from parframe.price.serving.hardware_lookup import known
    from parframe.report.fit import draw_fits, fit_fact

    found = known("", hardware)
    devices = [found.device(name) for name in gpu] or list(found.devices.values())
    dtypes = [dtype.strip() for dtype in weights.split(",") if dtype.strip()]
    for dtype in dtypes:
        capacity.room(0, dtype, cache)
    made = capacity.allocation(engine)
    names = models or tuple(model.name for model in shipped())
    facts: list[dict[str, object]] = []
    with steps(len(names)) as step:
        for name in names:
            step(name)
            label, graph = _graph(name)
            layouts = Layouts(graph, most)
            for device in devices:
                for dtype in dtypes:
                    best = fewest(layouts, device, length, dtype, cache, made)
                    facts.append(fit_fact(label, device.name, dtype, best))
    told = {"length": length, "engine": engine, "cache": cache, "most": most, "fits": facts}
    return Answer(told, partial(draw_fits, told))


def _graph(name: str) -> tuple[str, OperatorGraph]:
    """The graph of a model that ships, or of a folder or file, with what it is called."""
    from parframe import models

    if Path(name).exists():
        import parframe

        return Path(name).name, parframe.load(name)
    model = models.find(name)
    return model.name, model.graph()

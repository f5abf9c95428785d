"""Export the graphs of the shipped models into the package.

`python -m benchmarks.export_shipped_models [NAME ...]` exports all or some models from the
configurations in ``parframe/models/configs``. Needs the extra ``hf``.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import attrs

import parframe
from parframe import graph_json, models
from parframe.graph import OperatorGraph

FOLDER = Path(models.__file__).parent / "graphs"

_LARGEST_DATA = 1 << 16
"""Largest number of characters of a stored buffer; planning does not need larger ones."""


def load_graph(model: models.ShippedModel) -> OperatorGraph:
    """Load the graph of a shipped model, without the data of large buffers."""
    graph = parframe.load(model.config)
    parameters = {
        name: attrs.evolve(parameter, data=None)
        if parameter.data is not None and len(parameter.data) > _LARGEST_DATA
        else parameter
        for name, parameter in graph.parameters.items()
    }
    return attrs.evolve(graph, parameters=parameters, source=model.name)


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for model in [models.find_model(name) for name in names] or models.shipped_models():
        text = graph_json.dump_graph(load_graph(model))
        packed = gzip.compress(text.encode("utf-8"), 9, mtime=0)
        (FOLDER / f"{model.file}.json.gz").write_bytes(packed)
        print(f"{model.name}: {len(text)} characters, {len(packed)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

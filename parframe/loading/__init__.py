"""Loading of models as operator graphs; torch is imported only where it is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parframe.errors import ParframeError, optional_packages
from parframe.graph import OperatorGraph
from parframe.graph_json import read_graph
from parframe.loading.config_file import read_config, read_object

__all__ = ["load"]


@optional_packages()
def load(
    source: Any,
    inputs: Mapping[str, Any] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    positions: bool | None = False,
    dtype: str | None = None,
) -> OperatorGraph:
    """Load a model as an operator graph.

    Parameters
    ----------
    source
        A model folder or ``config.json`` of Hugging Face, a configuration of transformers or a
        dict with its ``model_type``, a ``torch.nn.Module``, a ``.pt2`` file, or a graph saved as
        JSON. No weights are read.
    inputs
        Example tensors by the names of the model's arguments; a module needs them.
    dynamic
        The dims of the inputs that may vary in size, with names: ``{"x": {0: "batch"}}``.
    positions
        Whether the positions of tokens are an input in addition to the tokens, as running with a
        KV cache needs; where a run gives none, they count from 0. Only for language models of
        Hugging Face; None adds them if the model's code takes them. A graph that is already loaded
        does not change.
    dtype
        The dtype that a Hugging Face model computes in, if narrower than that of its
        configuration; a wider one is chosen when the graph runs.

    Returns
    -------
    OperatorGraph
        The model's operators, equal layers once.

    Raises
    ------
    ParframeError
        If the source cannot be read, or the model cannot be exported; of kind ``install``, if a
        package that the source needs is not installed.
    """
    if isinstance(source, OperatorGraph):
        return source
    if isinstance(source, str | os.PathLike):
        return _load_path(Path(source), inputs, dynamic, positions, dtype)
    is_config = hasattr(source, "to_diff_dict") and hasattr(source, "model_type")
    if isinstance(source, Mapping) or is_config:
        with optional_packages("hf"):
            from parframe.loading.huggingface import load_config

        return load_config(source, inputs, dynamic, positions=positions, dtype=dtype)
    if hasattr(source, "named_parameters"):
        from parframe.loading.module import load_module

        return load_module(source, inputs, dynamic)
    raise ParframeError(
        "load",
        type(source).__name__,
        "is not a model, nor a path of one",
        "give a folder, a config.json, a torch.nn.Module, a .pt2 file or the JSON file of a graph",
    )


def _load_path(
    path: Path,
    inputs: Mapping[str, Any] | None,
    dynamic: Mapping[str, Mapping[int, str]] | None,
    positions: bool | None,
    dtype: str | None,
) -> OperatorGraph:
    if path.is_dir():
        content = read_config(path)
    elif path.suffix == ".pt2":
        from parframe.loading.pt2_archive import load_archive

        return load_archive(path)
    elif path.suffix != ".json":
        raise ParframeError(
            "load",
            str(path),
            "is not a folder, a .pt2 or a .json file" if path.exists() else "does not exist",
            "give a model's folder, its config.json, a .pt2 file or the JSON file of a graph",
        )
    else:
        content = read_object(path)
        if not content.keys() & {"model_type", "architectures"}:
            return read_graph(path)
    with optional_packages("hf"):
        from parframe.loading.huggingface import load_config

    return load_config(content, inputs, dynamic, str(path), positions=positions, dtype=dtype)

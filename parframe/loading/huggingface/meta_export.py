"""Export of a transformers model that is on the meta device."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.loading.explicit_casts import is_float32, restore_float32, to_float64
from parframe.loading.export import export
from parframe.loading.exported_program import MissingContentError
from parframe.loading.flat_graph import FlatGraph
from parframe.loading.huggingface.computed_buffers import move_to_cpu
from parframe.loading.huggingface.example_inputs import POSITIONS, make_example_inputs, name_dims
from parframe.loading.input_dims import DynamicDims


def export_model(
    model: Any,
    data: dict[str, torch.Tensor],
    inputs: Mapping[str, Any] | None,
    dynamic: DynamicDims | None,
    positions: bool,
) -> FlatGraph:
    """Export a model on the meta device, or on the CPU without memory where that is needed.

    `data` are the contents of the buffers that no checkpoint stores; without inputs the model takes
    its main input only, and positions if these are an input. A float32 model is left in float64.

    Raises
    ------
    ParframeError
        If the model cannot be exported, or needs the contents of a buffer that is not known.
    """
    examples = make_example_inputs(model) if inputs is None else dict(inputs)
    if positions:
        examples[POSITIONS] = torch.arange(7).expand(3, 7)
    dim_names = name_dims(model, examples, dynamic)
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    constants = {"use_cache": False} if takes_cache else {}
    float32 = is_float32(model)
    if float32:
        model.double()
        examples, data = to_float64(examples), to_float64(data)
    on_meta = {name: tensor.to("meta") for name, tensor in examples.items()}
    try:
        graph = export(model, on_meta, dim_names, data, constants)
    except ParframeError as error:
        # the model may use tensors that are not on the meta device
        if not isinstance(error, MissingContentError) and "meta" not in error.what:
            raise
        unknown = move_to_cpu(model, data)
        graph = export(model, examples, dim_names, data, constants)
        for name in sorted(unknown & graph.parameters.keys()):
            raise ParframeError(
                "load",
                name,
                "the contents of this buffer, which no checkpoint stores, cannot be computed"
                " without weights",
                "build the model yourself and load the module with example inputs",
            ) from None
    if positions and POSITIONS in graph.inputs:
        counted = attrs.evolve(graph.inputs[POSITIONS], counted=True)
        graph = attrs.evolve(graph, inputs={**graph.inputs, POSITIONS: counted})
    return restore_float32(graph) if float32 else graph

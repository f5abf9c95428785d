"""Loader of Hugging Face models: builds a model without weights from its config, and exports it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph, Parameter
from parframe.loading.buffer_data import encode_tensor
from parframe.loading.config_file import check_config
from parframe.loading.export import tied_names
from parframe.loading.flat_graph import to_operator_graph
from parframe.loading.huggingface.computed_buffers import compute_buffers
from parframe.loading.huggingface.configuration import (
    build_config,
    disable_cache,
    narrow_dtype,
    nested_configs,
    to_json,
)
from parframe.loading.huggingface.example_inputs import (
    POSITIONS,
    check_takes_positions,
    takes_positions,
)
from parframe.loading.huggingface.layer_stacks import find_stacks, truncate
from parframe.loading.huggingface.meta_export import export_model
from parframe.loading.huggingface.meta_model import (
    attention_implementations,
    build_model,
    use_parframe_experts,
)
from parframe.loading.huggingface.model_class import find_model_class
from parframe.loading.huggingface.recurrence_kernels import replace_kernels
from parframe.loading.huggingface.registries import IMPLEMENTATION, Usage, register_implementations
from parframe.loading.huggingface.repeated_layers import UnequalLayersError, repeat_layers
from parframe.loading.input_dims import DynamicDims


def load_config(
    config: Any,
    inputs: Mapping[str, Any] | None = None,
    dynamic: DynamicDims | None = None,
    source: str = "",
    shorten: bool = True,
    positions: bool | None = False,
    dtype: str | None = None,
) -> OperatorGraph:
    """Load the model that a configuration of transformers, or its content as a dict, describes.

    The options are those of `parframe.load`; without inputs the model takes its main input only.
    `source` is the path of the configuration; `shorten` exports equal layers only once.

    Raises
    ------
    ParframeError
        If the configuration is not valid, or the model cannot be exported.
    """
    if isinstance(config, Mapping):
        config = build_config(check_config(dict(config), source or "config"))
    config = copy.deepcopy(config)
    disable_cache(config)
    if dtype is not None:
        narrow_dtype(config, getattr(torch, dtype))
    model_class = find_model_class(config)
    if positions:
        check_takes_positions(model_class, inputs)
    elif positions is None:
        positions = takes_positions(model_class, inputs)
    record = to_json({**config.to_diff_dict(), "architectures": [model_class.__name__]})
    failures: list[ParframeError] = []
    for attention in attention_implementations(model_class):
        try:
            graph = _load_graph(model_class, config, attention, inputs, dynamic, shorten, positions)
        except ParframeError as error:
            failures.append(error)
        else:
            return attrs.evolve(graph, source=source or model_class.__name__, config=record)
    raise failures[-1]


def _load_graph(
    model_class: Any,
    config: Any,
    attention: str,
    inputs: Mapping[str, Any] | None,
    dynamic: DynamicDims | None,
    shorten: bool,
    positions: bool,
) -> OperatorGraph:
    """Export a model with as few layers as possible, or with all of them where that fails."""
    with register_implementations(packed=inputs is not None) as usage:
        model = use_parframe_experts(build_model(model_class, config, attention), usage)
        model.register_forward_pre_hook(partial(_note_positions, usage), with_kwargs=True)
        data = compute_buffers(model)
        stacks = find_stacks(model, nested_configs(config)) if shorten else []
        tied = tied_names(model)
        truncate(model, stacks)
        try:
            with replace_kernels(model):
                graph = to_operator_graph(export_model(model, data, inputs, dynamic, positions))
            if attention == IMPLEMENTATION and usage.masks_made and not usage.masks_used:
                raise ParframeError(
                    "load",
                    model_class.__name__,
                    "its attention does not use the masks that the model makes",
                    "report the model",
                )
            for stack in stacks:
                graph = repeat_layers(graph, stack, partial(_layer_parameter, data=data, tied=tied))
        except UnequalLayersError:
            return _load_graph(model_class, config, attention, inputs, dynamic, False, positions)
        except ParframeError as error:
            if not stacks or not isinstance(error.__cause__, IndexError):
                raise  # an IndexError comes from a lookup of a layer that was left out
            return _load_graph(model_class, config, attention, inputs, dynamic, False, positions)
    return graph


def _note_positions(usage: Usage, model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    usage.positions = kwargs.get(POSITIONS)


def _layer_parameter(
    name: str,
    like: Parameter,
    data: Mapping[str, torch.Tensor],
    tied: Mapping[str, tuple[str, ...]],
) -> Parameter:
    """Return the parameter of a layer, given that of an equal layer."""
    if like.data is not None and name not in data:
        raise UnequalLayersError(f"{name} has no contents")
    content = encode_tensor(data[name]) if like.data is not None else None
    return attrs.evolve(like, name=name, data=content, aliases=tied.get(name, ()))

"""Conversion of checkpoints that name or divide weights unlike the model, with transformers."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.weights.safetensors_header import DTYPES
from parframe.weights.sources import WeightSource
from parframe.weights.strided_views import View, whole_view
from parframe.weights.tensor_tracing import UntraceableError, trace_tensor


@attrs.frozen
class ConvertedCheckpoint:
    """Tensors of a checkpoint under the names of the model.

    - ``views``: the tensors by the model's names, as pieces of those in the checkpoint.
    - ``sources``: for each of these, the names in the checkpoint that it is made of.
    - ``ignorable``: names in the checkpoint of tensors that the model's class has, computes or
      ignores.
    - ``from_model_class``: whether the names were converted by the model's class.
    """

    views: Mapping[str, View]
    sources: Mapping[str, tuple[str, ...]]
    ignorable: frozenset[str] = frozenset()
    from_model_class: bool = False


def convert_checkpoint(graph: OperatorGraph, source: WeightSource) -> ConvertedCheckpoint:
    """Return the tensors of a checkpoint under the names of the model.

    Raise ``ParframeError`` of kind ``weights``, if the conversion does more than move elements.
    """
    if source.model_names or _has_all_parameters(graph, source):
        return _unconverted(source)
    model = _meta_model(graph)
    return _unconverted(source) if model is None else _convert(source, model)


def ignorable_names(graph: OperatorGraph, names: Iterable[str]) -> frozenset[str]:
    """Return the names of tensors that the model's class has, computes or ignores."""
    model = _meta_model(graph)
    if model is None:
        return frozenset()
    own = model.state_dict()
    others = {name: name for name in names if name not in own}
    return frozenset({*(name for name in names if name in own), *_ignored_names(model, others)})


def _unconverted(source: WeightSource) -> ConvertedCheckpoint:
    views = {name: _stored_view(source, name) for name in source.tensors}
    return ConvertedCheckpoint(views, {name: (name,) for name in views})


def _stored_view(source: WeightSource, name: str) -> View:
    return whole_view(name, source.shape(name), source.dtype(name))


def _has_all_parameters(graph: OperatorGraph, source: WeightSource) -> bool:
    """Return whether every parameter is there under its own name, without conversion."""
    return all(
        any(
            name in source.tensors and source.shape(name) == parameter.shape
            for name in (parameter.name, *parameter.aliases)
        )
        for parameter in graph.parameters.values()
        if parameter.data is None
    )


def _meta_model(graph: OperatorGraph) -> Any:
    """Return the model of transformers that a graph was loaded from, on the meta device, if any."""
    if not graph.config.get("model_type"):
        return None
    try:
        from parframe.loading.huggingface import build_config, build_model, find_model_class

        config = build_config(dict(graph.config))
        return build_model(find_model_class(config), config, "eager")
    except ParframeError:
        return None


def _convert(source: WeightSource, model: Any) -> ConvertedCheckpoint:
    """Rename tensors, and group those that a converter of transformers joins or divides."""
    loading: Any = importlib.import_module("transformers.core_model_loading")
    mapping: Any = importlib.import_module("transformers.conversion_mapping")
    transforms = mapping.get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, loading.WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, loading.WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    state, base = model.state_dict(), model.base_model_prefix
    views: dict[str, View] = {}
    sources: dict[str, tuple[str, ...]] = {}
    groups: dict[str, tuple[Any, list[str]]] = {}
    others: dict[str, str] = {}
    for name in sorted(source.tensors, key=loading.dot_natural_key):
        renamed, pattern = loading.rename_source_key(name, renamings, converters, base, state)
        if renamed not in state and name in state:
            renamed, pattern = loading.rename_source_key(name, [], [], base, state)
        if renamed not in state:
            others[name] = renamed
        elif pattern is None:
            if renamed not in views or name == renamed:
                views[renamed], sources[renamed] = _stored_view(source, name), (name,)
        else:
            if renamed not in groups:
                groups[renamed] = copy.deepcopy(by_pattern[pattern]), []
            converter, names = groups[renamed]
            converter.add_tensor(renamed, name, pattern, _trace(source, name))
            names.append(name)
    for target, (converter, names) in groups.items():
        converted = _converted_views(converter, target, names, model, source.description)
        for name, view in converted.items():
            views[name], sources[name] = view, tuple(names)
    used = {name for names in sources.values() for name in names}
    ignorable = frozenset({*used, *_ignored_names(model, others)})
    return ConvertedCheckpoint(views, sources, ignorable, from_model_class=True)


def _trace(source: WeightSource, name: str) -> Any:
    if source.dtype(name) not in DTYPES:
        raise ParframeError(
            "weights",
            f"{source.description}, {name}",
            f"has the dtype {source.dtype(name)}, which cannot be read",
            "use weights that are not quantized",
        )
    return trace_tensor(name, source.shape(name), source.dtype(name))


def _converted_views(
    converter: Any, target: str, names: list[str], model: Any, where: str
) -> dict[str, View]:
    """Return the views that a converter of transformers makes of traced tensors."""
    try:
        converted = converter.convert(target, model=model, config=model.config)
    except (UntraceableError, RuntimeError, ValueError, IndexError, AttributeError) as error:
        raise ParframeError(
            "weights",
            f"{where}, {names[0]}",
            f"{target} cannot be made of the {len(names)} tensors of this checkpoint ({error})",
            "load it with transformers, save it with save_pretrained, and use that folder",
        ) from error
    return {
        name: (one[0] if isinstance(one, list) else one).view_of for name, one in converted.items()
    }


def _ignored_names(model: Any, renamed_names: Mapping[str, str]) -> Iterable[str]:
    """Yield the names of tensors that the model's class ignores or computes itself.

    ``renamed_names`` has the model's name for each name in the checkpoint.
    """
    ignored = [re.compile(p) for p in model._keys_to_ignore_on_load_unexpected or ()]
    computed = {name for name, _ in model.named_buffers()}
    for name, renamed in renamed_names.items():
        if renamed in computed or any(p.search(renamed) or p.search(name) for p in ignored):
            yield name

"""Checkpoints that name or divide weights otherwise than the model, by transformers' own table."""

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
class Known:
    """What a checkpoint has for a model.

    Parameters
    ----------
    views
        The tensors it has, by the model's names, as pieces of those in the checkpoint.
    sources
        For each of these, the names in the checkpoint that it is made of.
    harmless
        Names in the checkpoint of tensors that the model's class has, computes or ignores.
    of_model
        Whether the model's class was asked.
    """

    views: Mapping[str, View]
    sources: Mapping[str, tuple[str, ...]]
    harmless: frozenset[str] = frozenset()
    of_model: bool = False


def known(graph: OperatorGraph, origin: WeightSource) -> Known:
    """What a checkpoint has, under the names of the model.

    Raises
    ------
    ParframeError
        Of kind ``weights``, if its tensors would have to be converted by more than moving elements.
    """
    if origin.own or _has_all(graph, origin):
        return _plain(origin)
    model = _model(graph)
    return _plain(origin) if model is None else _converted(origin, model)


def harmless(graph: OperatorGraph, names: Iterable[str]) -> frozenset[str]:
    """Those of some names that the model's class has, computes or ignores."""
    model = _model(graph)
    if model is None:
        return frozenset()
    own = model.state_dict()
    left = {name: name for name in names if name not in own}
    return frozenset({*(name for name in names if name in own), *_harmless(model, left)})


def _plain(origin: WeightSource) -> Known:
    views = {name: _whole(origin, name) for name in origin.tensors}
    return Known(views, {name: (name,) for name in views})


def _whole(origin: WeightSource, name: str) -> View:
    return whole_view(name, origin.shape(name), origin.dtype(name))


def _has_all(graph: OperatorGraph, origin: WeightSource) -> bool:
    """Whether every parameter is there under its own name, so that nothing is to be converted."""
    return all(
        any(
            name in origin.tensors and origin.shape(name) == parameter.shape
            for name in (parameter.name, *parameter.aliases)
        )
        for parameter in graph.parameters.values()
        if parameter.data is None
    )


def _model(graph: OperatorGraph) -> Any:
    """The model of transformers that a graph was loaded from, without memory; None without one."""
    if not graph.config.get("model_type"):
        return None
    try:
        from parframe.loading.huggingface import build_config, build_model, find_model_class

        config = build_config(dict(graph.config))
        return build_model(find_model_class(config), config, "eager")
    except ParframeError:
        return None


def _converted(origin: WeightSource, model: Any) -> Known:
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
    left: dict[str, str] = {}
    for name in sorted(origin.tensors, key=loading.dot_natural_key):
        renamed, pattern = loading.rename_source_key(name, renamings, converters, base, state)
        if renamed not in state and name in state:
            renamed, pattern = loading.rename_source_key(name, [], [], base, state)
        if renamed not in state:
            left[name] = renamed
        elif pattern is None:
            if renamed not in views or name == renamed:
                views[renamed], sources[renamed] = _whole(origin, name), (name,)
        else:
            if renamed not in groups:
                groups[renamed] = copy.deepcopy(by_pattern[pattern]), []
            converter, names = groups[renamed]
            converter.add_tensor(renamed, name, pattern, _traced(origin, name))
            names.append(name)
    for target, (converter, names) in groups.items():
        for made, view in _traced_through(converter, target, names, model, origin.where).items():
            views[made], sources[made] = view, tuple(names)
    placed = {name for names in sources.values() for name in names}
    return Known(views, sources, frozenset({*placed, *_harmless(model, left)}), of_model=True)


def _traced(origin: WeightSource, name: str) -> Any:
    if origin.dtype(name) not in DTYPES:
        raise ParframeError(
            "weights",
            f"{origin.where}, {name}",
            f"has the dtype {origin.dtype(name)}, which cannot be read",
            "give weights that are not quantised",
        )
    return trace_tensor(name, origin.shape(name), origin.dtype(name))


def _traced_through(
    converter: Any, target: str, names: list[str], model: Any, where: str
) -> dict[str, View]:
    """What a converter of transformers makes of tensors that remember where they are from."""
    try:
        found = converter.convert(target, model=model, config=model.config)
    except (UntraceableError, RuntimeError, ValueError, IndexError, AttributeError) as error:
        raise ParframeError(
            "weights",
            f"{where}, {names[0]}",
            f"{target} cannot be made of the {len(names)} tensors of this checkpoint ({error})",
            "load it with transformers, save it with save_pretrained, and give that",
        ) from error
    return {name: (one[0] if isinstance(one, list) else one).view_of for name, one in found.items()}


def _harmless(model: Any, left: Mapping[str, str]) -> Iterable[str]:
    """Of names and what they became, those that the model's class ignores or computes itself."""
    ignored = [re.compile(p) for p in model._keys_to_ignore_on_load_unexpected or ()]
    computed = {name for name, _ in model.named_buffers()}
    for name, renamed in left.items():
        if renamed in computed or any(p.search(renamed) or p.search(name) for p in ignored):
            yield name

"""Compatibility of weights with a graph, checked in full before any weight is read.

Every parameter must be there, with its shape and with a dtype that converts without loss of
meaning: an integer does not become a float, nor does an 8-bit float, whose scale is stored
elsewhere. A tensor that is not in the graph may be a bias that the model should add, so it is
refused, except for tensors that cannot change the result:

- buffers that the model computes itself, and tensors with the name and shape of such a buffer;
- tensors that the model's class has in addition to the graph, or ignores;
- tensors without fractions: counters, positions, masks;
- parts outside the model, such as a head for another task: the graph has nothing under the first
  part of the name. These give a remark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.weights.conversion import ConvertedCheckpoint, convert_checkpoint, ignorable_names
from parframe.weights.sources import WeightSource
from parframe.weights.strided_views import View

_SHOWN = 3


@attrs.frozen
class MatchedWeights:
    """Weights that are compatible with a graph.

    - ``views``: for every parameter to read, the tensors that it is made of.
    - ``remarks``: remarks for the user, a sentence each.
    """

    views: Mapping[str, View]
    remarks: tuple[str, ...] = ()


def match_weights(
    graph: OperatorGraph, source: WeightSource, extra: bool = False
) -> MatchedWeights:
    """Match every parameter of a graph with the tensors that it is made of.

    - ``extra``: whether all tensors that are not in the graph are ignored.

    Raise ``ParframeError`` of kind ``weights``, listing all tensors that are missing, of another
    shape, not convertible, or not in the graph.
    """
    checkpoint = convert_checkpoint(graph, source)
    wanted = {name: p for name, p in graph.parameters.items() if p.data is None}
    views: dict[str, View] = {}
    mismatches, inconvertible = [], []
    for name, parameter in wanted.items():
        stored = next((n for n in (name, *parameter.aliases) if n in checkpoint.views), None)
        view = checkpoint.views[stored] if stored is not None else None
        if view is None:
            mismatches.append(f"{name} is missing")
        elif view.shape != parameter.shape:
            shapes = f"the shape {list(view.shape)}, not {list(parameter.shape)}"
            mismatches.append(f"{name} has {shapes}")
        elif not _convertible(view.dtype, parameter.dtype):
            dtypes = f"{view.dtype}, which does not convert to {parameter.dtype}"
            inconvertible.append(f"{name} is {dtypes}")
        else:
            views[name] = view
    unknown, unrelated = _extra_tensors(graph, source, checkpoint)
    if mismatches or inconvertible or (unknown and not extra):
        raise _incompatible(source, mismatches, inconvertible, unknown, len(wanted))
    return MatchedWeights(views, tuple(_remarks(unrelated, unknown)))


def _convertible(stored: str, wanted: str) -> bool:
    if stored == wanted:
        return True
    one, two = getattr(torch, stored, None), getattr(torch, wanted)
    if not isinstance(one, torch.dtype):
        return False
    if one.is_floating_point and two.is_floating_point:
        return one.itemsize > 1 and two.itemsize > 1
    return bool(torch.promote_types(one, two) == two and not two.is_floating_point)


def _extra_tensors(
    graph: OperatorGraph, source: WeightSource, checkpoint: ConvertedCheckpoint
) -> tuple[list[str], list[str]]:
    """Return the unknown tensors that may change the result, and those of other modules."""
    if source.model_names:
        return [], []
    names = {n for p in graph.parameters.values() for n in (p.name, *p.aliases)}
    present = names & checkpoint.sources.keys()
    used = {stored for name in present for stored in checkpoint.sources[name]}
    computed = {(_last(name), p.shape) for name, p in graph.parameters.items() if p.data}
    tops = {name.partition(".")[0] for name in (*names, *used)}
    left = [
        name
        for name in sorted(source.tensors.keys() - used - checkpoint.ignorable)
        if _may_be_weight(source.dtype(name)) and (_last(name), source.shape(name)) not in computed
    ]
    unrelated = [name for name in left if name.partition(".")[0] not in tops]
    unknown = [name for name in left if name.partition(".")[0] in tops]
    if unknown and not checkpoint.from_model_class:
        ignorable = ignorable_names(graph, unknown)
        unknown = [name for name in unknown if name not in ignorable]
    return unknown, unrelated


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _may_be_weight(dtype: str) -> bool:
    """Return whether a dtype is that of weights, not of counters, positions or masks."""
    torch_dtype = getattr(torch, dtype, None)
    return torch_dtype is None or torch_dtype.is_floating_point or torch_dtype.is_complex


def _remarks(unrelated: list[str], unknown: list[str]) -> Iterator[str]:
    for names, what in ((unrelated, "of other modules"), (unknown, "that are not in the model")):
        if names:
            yield f"{len(names)} tensors {what} were not read: {_first_names(names)}"


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _incompatible(
    source: WeightSource,
    mismatches: list[str],
    inconvertible: list[str],
    unknown: list[str],
    wanted: int,
) -> ParframeError:
    """Return the error: in full, or its first parts where most tensors do not match."""
    many = max(wanted // 2, _SHOWN)
    if len(mismatches) > many or len(inconvertible) > many:
        first = "; ".join((mismatches + inconvertible)[:_SHOWN])
        not_in_model = f"{len(unknown)} are not in the model"
        if len(inconvertible) > many:
            what = f"quantized weights: {len(inconvertible)} of {wanted} do not convert"
            hint = "use weights that are not quantized"
        else:
            what = f"the weights of another model: {len(mismatches)} of {wanted} do not match"
            hint = "use the weights of this model, or load the model from the folder of its weights"
        what = f"{what}, {not_in_model}; first {first}"
        return ParframeError("weights", source.description, what, hint)
    hint = "use the weights of this model"
    if unknown and not mismatches and not inconvertible:
        hint += ", or set extra=True (--extra) to ignore tensors that are not in it"
    not_in_model_each = [f"{name} is not in the model" for name in unknown]
    count = len(mismatches) + len(inconvertible) or len(unknown)
    return ParframeError(
        "weights",
        f"{source.description}, {count} of {wanted} weights",
        "; ".join(mismatches + inconvertible + not_in_model_each),
        hint,
    )

"""Whether weights are those of a graph, told in full before any is loaded.

Every parameter must be there, of its shape and of a kind of number that can be converted without
loss of meaning: an integer is no float, nor is a float of one byte, whose scale lies elsewhere.
A tensor that the graph has no use for may be a bias that the model would have to add, so it is
refused, but for what cannot change the result:

- what the model computes itself: a buffer of its own, or one of such a name and shape;
- what the model's class has beside the graph, or says it ignores;
- what is no number with a fraction: a counter, positions, a mask;
- a part beside the model: where the graph has nothing under the first part of the name, such as
  a head for another task. It is a remark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import torch

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.weights.conversion import Known, harmless, known
from parframe.weights.sources import WeightSource
from parframe.weights.strided_views import View

_SHOWN = 3


@attrs.frozen
class MatchedWeights:
    """Weights that fit a graph.

    Parameters
    ----------
    views
        For every parameter that is to be read, the tensors that it is made of.
    remarks
        What its user should know, a sentence each.
    """

    views: Mapping[str, View]
    remarks: tuple[str, ...] = ()


def fit(graph: OperatorGraph, origin: WeightSource, extra: bool = False) -> MatchedWeights:
    """Find every parameter of a graph among tensors.

    Parameters
    ----------
    graph
        The graph.
    origin
        The tensors.
    extra
        Whether tensors that the graph has no use for are ignored, whatever they are.

    Raises
    ------
    ParframeError
        Of kind ``weights``, with all that is missing, too much, misshapen or not convertible.
    """
    found = known(graph, origin)
    wanted = {name: p for name, p in graph.parameters.items() if p.data is None}
    views: dict[str, View] = {}
    misfits, packed = [], []
    for name, parameter in wanted.items():
        there = next((n for n in (name, *parameter.aliases) if n in found.views), None)
        view = found.views[there] if there is not None else None
        if view is None:
            misfits.append(f"{name} is missing")
        elif view.shape != parameter.shape:
            misfits.append(f"{name} has the shape {list(view.shape)}, not {list(parameter.shape)}")
        elif not _convertible(view.dtype, parameter.dtype):
            packed.append(f"{name} is {view.dtype}, which does not convert to {parameter.dtype}")
        else:
            views[name] = view
    foreign, beside = _extras(graph, origin, found)
    if misfits or packed or (foreign and not extra):
        raise _fault(origin, misfits, packed, foreign, len(wanted))
    return MatchedWeights(views, tuple(_remarks(beside, foreign)))


def _convertible(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    one, two = getattr(torch, given, None), getattr(torch, wanted)
    if not isinstance(one, torch.dtype):
        return False
    if one.is_floating_point and two.is_floating_point:
        return one.itemsize > 1 and two.itemsize > 1
    return bool(torch.promote_types(one, two) == two and not two.is_floating_point)


def _extras(
    graph: OperatorGraph, origin: WeightSource, found: Known
) -> tuple[list[str], list[str]]:
    """The tensors without use that may change the result, and those of parts beside the model."""
    if origin.own:
        return [], []
    names = {n for p in graph.parameters.values() for n in (p.name, *p.aliases)}
    used = {source for name in names & found.sources.keys() for source in found.sources[name]}
    computed = {(_last(name), p.shape) for name, p in graph.parameters.items() if p.data}
    tops = {name.partition(".")[0] for name in (*names, *used)}
    left = [
        name
        for name in sorted(origin.tensors.keys() - used - found.harmless)
        if _is_number(origin.dtype(name)) and (_last(name), origin.shape(name)) not in computed
    ]
    beside = [name for name in left if name.partition(".")[0] not in tops]
    foreign = [name for name in left if name.partition(".")[0] in tops]
    if foreign and not found.of_model:
        own = harmless(graph, foreign)
        foreign = [name for name in foreign if name not in own]
    return foreign, beside


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_number(dtype: str) -> bool:
    """Whether it may be a weight: not a counter, a position or a mask."""
    kind = getattr(torch, dtype, None)
    return kind is None or kind.is_floating_point or kind.is_complex


def _remarks(beside: list[str], foreign: list[str]) -> Iterator[str]:
    for names, what in ((beside, "of parts beside the model"), (foreign, "that it has no use for")):
        if names:
            yield f"{len(names)} tensors {what} were not read: {_some(names)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _fault(
    origin: WeightSource, misfits: list[str], packed: list[str], foreign: list[str], wanted: int
) -> ParframeError:
    many = max(wanted // 2, _SHOWN)
    if len(misfits) > many or len(packed) > many:
        first = "; ".join((misfits + packed)[:_SHOWN])
        unknown = f"{len(foreign)} are not in the model"
        if len(packed) > many:
            what = f"quantised weights: {len(packed)} of {wanted} do not convert, {unknown}"
            hint = "give weights that are not quantised"
        else:
            what = f"the weights of another model: {len(misfits)} of {wanted} do not fit, {unknown}"
            hint = (
                "give the weights of this model, or load the model from the folder of its weights"
            )
        return ParframeError("weights", origin.where, f"{what}; first {first}", hint)
    hint = "give the weights of this model"
    if foreign and not misfits and not packed:
        hint += ", or leave out what is not in it by extra=True (--extra)"
    unknown_each = [f"{name} is not in the model" for name in foreign]
    count = len(misfits) + len(packed) or len(foreign)
    return ParframeError(
        "weights",
        f"{origin.where}, {count} of {wanted} weights",
        "; ".join(misfits + packed + unknown_each),
        hint,
    )

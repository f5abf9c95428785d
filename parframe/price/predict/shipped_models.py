"""Work of shipped models in the layouts that the rows of a table give."""

from __future__ import annotations

from functools import lru_cache

from parframe.errors import ParframeError
from parframe.models import find_model
from parframe.price.predict.query_resolution import Layout, ServableModel
from parframe.price.work.compressed.work_from_composite import work_from_composite, work_reader
from parframe.price.work.work import Work
from parframe.spec import Spec


def servable_model(name: str) -> ServableModel:
    """Return a shipped model with its work in any layout.

    Raises
    ------
    ParframeError
        Of kind `load`, if no shipped model has this name.
    """
    model = find_model(name)
    return ServableModel(model.name, model.weights, lambda layout: _work(model.name, layout))


@lru_cache(maxsize=4096)
def _work(name: str, layout: Layout) -> Work:
    graph = find_model(name).graph()
    has_experts = bool(work_reader(graph).dimensions().targets("experts"))
    return work_from_composite(graph, spec_of_layout(layout, has_experts))


def spec_of_layout(layout: Layout, has_experts: bool) -> Spec:
    """Return the spec of a layout.

    Experts are sharded over the ranks of tensor and data parallelism, as in serving engines: over
    all of them, over those of data parallelism, or over a part of those of tensor parallelism, of
    which the rest shards each expert.

    Raises
    ------
    ParframeError
        Of kind `mesh`, if the degrees of expert, tensor and data parallelism do not fit together.
    """
    tensor, data, expert = layout.tensor, layout.data, layout.expert
    if expert == 1 or not has_experts:
        return Spec(parallel=_composite(pp=layout.pipeline, dp=data, tp=tensor))
    if data % expert == 0:
        return Spec(
            parallel=_composite(pp=layout.pipeline, ep=expert, dp=data // expert, tp=tensor)
        )
    if expert == tensor * data:
        axes = tuple(axis for axis, size in (("dp", data), ("tp", tensor)) if size > 1)
        splits = {"experts": axes, "expert_ffn": ()}
        return Spec(parallel=_composite(pp=layout.pipeline, dp=data, tp=tensor), splits=splits)
    if data == 1 and layout.pipeline == 1 and tensor % expert == 0:
        both = ("ep", "tp")
        return Spec(
            mesh=(("ep", expert), ("tp", tensor // expert)),
            splits={"heads": both, "vocab": both, "experts": ("ep",), "expert_ffn": ("tp",)},
        )
    raise ParframeError(
        "mesh",
        f"ep={expert}",
        f"experts cannot be sharded over {expert} ranks with tp={tensor} and dp={data}",
        "set ep to a divisor of dp, or to tp x dp",
    )


def _composite(**degrees: int) -> str:
    """Return the composite of these degrees without those of one; the last axis is contiguous."""
    return "".join(f"{name.upper()}{size}" for name, size in degrees.items() if size > 1) or "TP1"

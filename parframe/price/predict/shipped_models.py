"""The work of a shipped model in a layout that columns of a table give, as its plan has it."""

from __future__ import annotations

from functools import lru_cache

from parframe.errors import ParframeError
from parframe.models import find
from parframe.price.predict.query_resolution import Layout, Model
from parframe.price.work.compressed.work_from_composite import work_from_composite, work_reader
from parframe.price.work.work import Work
from parframe.spec import Spec


def model(name: str) -> Model:
    """Return what is known of a model that ships.

    Raises
    ------
    ParframeError
        Of kind `load`, if none of that name does.
    """
    found = find(name)
    return Model(found.name, found.weights, lambda layout: _work(found.name, layout))


@lru_cache(maxsize=4096)
def _work(name: str, layout: Layout) -> Work:
    found = find(name)
    graph = found.graph()
    experts = bool(work_reader(graph).dimensions().targets("experts"))
    return work_from_composite(graph, spec_of(layout, experts))


def spec_of(layout: Layout, experts: bool) -> Spec:
    """Return the spec of a layout.

    Experts lie over the ranks that tensor and data parallelism have, as engines place them: over
    all of them, over those of data parallelism, or over a part of those of tensor parallelism, of
    which the rest splits each expert.

    Raises
    ------
    ParframeError
        Of kind `mesh`, if they cannot lie so.
    """
    tensor, data, expert = layout.tensor, layout.data, layout.expert
    if expert == 1 or not experts:
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
        f"experts do not lie so over tp={tensor} and dp={data}",
        "give an ep that divides dp, or is tp x dp",
    )


def _composite(**degrees: int) -> str:
    """Write a composite, without what is not divided; ranks of the last letter are neighbours."""
    return "".join(f"{name.upper()}{size}" for name, size in degrees.items() if size > 1) or "TP1"

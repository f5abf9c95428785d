"""The work of many composites of the same strategies, which are looked up once for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parframe import hooks
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.mesh import parse_composite
from parframe.price.work.compressed.work_from_composite import reader
from parframe.price.work.work import Work
from parframe.spec import Spec
from parframe.strategy import Strategy, mesh_of, place


def usable(graph: OperatorGraph, codes: Sequence[str]) -> list[str]:
    """Give the codes of those strategies of which the model has what they need.

    Raises
    ------
    ParframeError
        As `composite_work_reader` does.
    """
    offered = _offered(codes)
    dimensions = reader(graph, hooks.rules(codes)).dimensions()
    return [code for code in codes if all(map(dimensions.targets, offered[code].needs))]


def composite_work_reader(graph: OperatorGraph, codes: Sequence[str]) -> Callable[[str], Work]:
    """Give what tells the work of composites of some strategies.

    Parameters
    ----------
    graph
        The model.
    codes
        The strategies' codes, those of plugins too.

    Raises
    ------
    ParframeError
        Of kind ``strategy`` or ``plugin``, for a code that nobody claims or a plugin that fails.
    """
    offered = _offered(codes)
    own = reader(graph, hooks.rules(codes))

    def work(composite: str) -> Work:
        parts = [(offered[code](), degree) for code, degree in parse_composite(composite)]
        return own.work(place(parts, mesh_of(parts)))

    return work


def _offered(codes: Sequence[str]) -> dict[str, type[Strategy]]:
    if codes:
        try:
            Spec(parallel="".join(f"{code}1" for code in codes)).placing()  # says what is wrong
        except ParframeError as fault:
            where = f"strategies {','.join(codes)}"[:200]
            raise ParframeError(
                fault.kind, where, fault.what.splitlines()[0], fault.hint.splitlines()[0]
            ) from fault
    return hooks.strategies(codes)

"""Work of many composites of the same strategies, which are looked up once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parframe import hooks
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.mesh import parse_composite
from parframe.price.work.compressed.work_from_composite import work_reader
from parframe.price.work.work import Work
from parframe.spec import Spec
from parframe.strategy import Strategy, mesh_of, place


def usable_strategies(graph: OperatorGraph, codes: Sequence[str]) -> list[str]:
    """Return the codes of the strategies that apply to a model.

    Raises
    ------
    ParframeError
        As `composite_work_reader` does.
    """
    strategies = _find_strategies(codes)
    dimensions = work_reader(graph, hooks.rules(codes)).dimensions()
    return [code for code in codes if all(map(dimensions.targets, strategies[code].needs))]


def composite_work_reader(graph: OperatorGraph, codes: Sequence[str]) -> Callable[[str], Work]:
    """Return a function that returns the work of a composite of some strategies.

    Raises
    ------
    ParframeError
        Of kind ``strategy`` or ``plugin``, for a code that nobody claims or a plugin that fails.
    """
    strategies = _find_strategies(codes)
    reader = work_reader(graph, hooks.rules(codes))

    def work(composite: str) -> Work:
        parts = [(strategies[code](), degree) for code, degree in parse_composite(composite)]
        return reader.work(place(parts, mesh_of(parts)))

    return work


def _find_strategies(codes: Sequence[str]) -> dict[str, type[Strategy]]:
    if codes:
        try:
            Spec(parallel="".join(f"{code}1" for code in codes)).placing()  # raises what is wrong
        except ParframeError as fault:
            where = f"strategies {','.join(codes)}"[:200]
            raise ParframeError(
                fault.kind, where, fault.what.splitlines()[0], fault.hint.splitlines()[0]
            ) from fault
    return hooks.strategies(codes)

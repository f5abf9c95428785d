"""The code of rank modules as text, without paths of Python modules and names of values."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.fx import Graph, GraphModule, Node

import parframe

from .compare import Names
from .plans import CASES as PLANS
from .plans import groups_of, plan_of

CASES: dict[str, tuple[str, int, bool]] = {
    "tp-cache": ("tp", 1, True),
    "tp-latent-cache": ("tp-latent", 0, True),
    "tp-sp-windows": ("tp-sp-windows", 3, False),
    "pp-dp-tp": ("pp-dp-tp", 6, False),
    "stages-zigzag": ("stages-zigzag", 3, False),
    "cp-ring": ("cp-ring", 1, False),
    "cp-cache": ("cp", 2, True),
    "ep-to-all": ("ep-to-all", 1, False),
    "ep-gather": ("ep-gather", 5, False),
    "ep-auto-cache": ("ep-auto", 3, True),
}
"""A golden plan, a rank of it, and whether its module has a cache."""


def code(name: str, names: Names) -> str:
    """Return the code of a rank module, every graph in it in turn."""
    plan_name, rank, cache = CASES[name]
    plan = plan_of(*PLANS[plan_name], positions=True)
    groups = {ranks: _Group(rank, ranks) for ranks in set(groups_of(plan, rank))}
    module = parframe.rank_module(plan, rank, "random", groups=groups, cache=cache)
    graphs = [part.graph for part in module.modules() if isinstance(part, GraphModule)]
    return "\n\n".join("\n".join(_lines(graph, names)) for graph in graphs) + "\n"


class _Group(dist.ProcessGroup):
    """A process group that never communicates, named after its ranks."""

    def __init__(self, rank: int, ranks: tuple[int, ...]) -> None:
        super().__init__(ranks.index(rank), len(ranks))
        self.ranks = ranks

    @property
    def group_name(self) -> str:
        """The name that operators are given."""
        return f"ranks {' '.join(map(str, self.ranks))}"


def _lines(graph: Graph, names: Names) -> Iterator[str]:
    numbers = {node: f"%{number}" for number, node in enumerate(graph.nodes)}

    def text(value: Any) -> str:
        match value:
            case Node():
                return numbers[value]
            case str():
                return names.text(value)
            case list() | tuple():
                return f"[{', '.join(map(text, value))}]"
            case dict():
                return f"{{{', '.join(f'{text(k)}: {text(v)}' for k, v in value.items())}}}"
            case slice():
                return f"slice({text(value.start)}, {text(value.stop)}, {text(value.step)})"
        return names.words(_function(value)) if callable(value) else repr(value)

    for node in graph.nodes:
        target = node.target if isinstance(node.target, str) else _function(node.target)
        items = sorted((names.words(key), text(value)) for key, value in node.kwargs.items())
        given = [*map(text, node.args), *(f"{key}={value}" for key, value in items)]
        yield f"{numbers[node]} = {node.op} {names.words(target)}({', '.join(given)})"


def _function(target: Any) -> str:
    """Return a function's own name; an operator's with its namespace."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return str(getattr(target, "__qualname__", target))

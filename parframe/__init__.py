"""The public names of parframe, each imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING

from parframe.errors import optional_packages

if TYPE_CHECKING:
    from parframe.checking.check import check
    from parframe.errors import ParframeError
    from parframe.executors import run
    from parframe.graph import OperatorGraph
    from parframe.hooks import hookimpl
    from parframe.loading import load
    from parframe.mesh import Mesh
    from parframe.partitioning import partition
    from parframe.plan import Plan, load_plan
    from parframe.price.choose.public_api import choose, estimate
    from parframe.rules import Rule
    from parframe.runtime.host_module import rank_module
    from parframe.simulation.simulate import simulate
    from parframe.simulation.verify import verify
    from parframe.spec import Spec
    from parframe.strategy import Strategy

__all__ = [
    "Mesh",
    "OperatorGraph",
    "ParframeError",
    "Plan",
    "Rule",
    "Spec",
    "Strategy",
    "check",
    "choose",
    "estimate",
    "hookimpl",
    "load",
    "load_plan",
    "partition",
    "rank_module",
    "run",
    "simulate",
    "verify",
]

_HOMES = {
    "Mesh": "parframe.mesh",
    "OperatorGraph": "parframe.graph",
    "ParframeError": "parframe.errors",
    "Plan": "parframe.plan",
    "Rule": "parframe.rules",
    "Spec": "parframe.spec",
    "Strategy": "parframe.strategy",
    "check": "parframe.checking",
    "choose": "parframe.price.choose.public_api",
    "estimate": "parframe.price.choose.public_api",
    "hookimpl": "parframe.hooks",
    "load": "parframe.loading",
    "load_plan": "parframe.plan",
    "partition": "parframe.partitioning",
    "rank_module": "parframe.runtime.host_module",
    "run": "parframe.executors",
    "simulate": "parframe.simulation",
    "verify": "parframe.simulation",
}


def __getattr__(name: str) -> object:
    """Import the module of a public name, and return what it names."""
    if name not in _HOMES:
        raise AttributeError(f"module 'parframe' has no attribute {name!r}")
    with optional_packages():
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})

"""What memory every rank of a run is expected to need, in words."""

from __future__ import annotations

from parframe.checking import all_device_memory, memory_sizes
from parframe.generation.engine import Shape
from parframe.generation.replicas import replicas_of
from parframe.plan import Plan


def estimates(plan: Plan, shape: Shape, dtype: str | None = None) -> list[str]:
    """What every rank is expected to need.

    Parameters
    ----------
    plan
        The plan.
    shape
        How much a replica does at once.
    dtype
        What floating-point numbers are held in; that of the model's own parameters if None.

    Returns
    -------
    list of str
        The plan's own estimate for the rows and positions of this run, rank by rank.
    """
    own = (parameter.dtype for parameter in plan.graph.parameters.values() if not parameter.data)
    dtype = dtype or next((kind for kind in own if "float" in kind), "float32")
    rows = shape.rows * shape.lanes * len(replicas_of(plan))
    needed = all_device_memory(plan, memory_sizes(plan, dtype, rows, shape.slots))
    return [str(needed[rank]) for rank in range(plan.mesh.size)]

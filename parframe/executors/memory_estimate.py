"""Expected memory of every rank of a run, in words."""

from __future__ import annotations

from parframe.checking import all_device_memory, memory_sizes
from parframe.generation.batch_shape import BatchShape
from parframe.generation.replicas import find_replicas
from parframe.plan import Plan


def estimate_rank_memory(plan: Plan, shape: BatchShape, dtype: str | None = None) -> list[str]:
    """Estimate the memory of every rank."""
    own = (parameter.dtype for parameter in plan.graph.parameters.values() if not parameter.data)
    dtype = dtype or next((kind for kind in own if "float" in kind), "float32")
    rows = shape.batch_size * len(find_replicas(plan))
    needed = all_device_memory(plan, memory_sizes(plan, dtype, rows, shape.slots))
    return [str(needed[rank]) for rank in range(plan.mesh.size)]

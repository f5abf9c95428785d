"""Devices as a named grid, and the composites that describe one."""

from parframe.mesh.axes import MAX_DEVICES, MAX_SHARE, is_axis
from parframe.mesh.composite import (
    GRAMMAR,
    Composite,
    composite_degrees,
    format_composite,
    is_code,
    parse_composite,
)
from parframe.mesh.mesh import Mesh
from parframe.mesh.rank_grid import rank_grid
from parframe.mesh.staged_mesh import StagedMesh

__all__ = [
    "GRAMMAR",
    "MAX_DEVICES",
    "MAX_SHARE",
    "Composite",
    "Mesh",
    "StagedMesh",
    "composite_degrees",
    "format_composite",
    "is_axis",
    "is_code",
    "parse_composite",
    "rank_grid",
]
